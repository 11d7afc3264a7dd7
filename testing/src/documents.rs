//! The blocks of commands in a page of documentation, by the section that they stand in.
//!
//! Not here: running those that belong to one scratch folder and print what the page says (`scripts/examples`).

/// A block of commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The heading that it stands under, without its number signs; empty before the first one.
    pub section: String,
    /// The line of the page on which its first command stands.
    pub line: usize,
    /// The commands.
    pub text: String,
}

/// The blocks of a page that are fenced as `language`.
pub fn blocks(page: &str, language: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let (mut section, mut open) = (String::new(), None::<(bool, Block)>);
    for (line, text) in (1..).zip(page.lines()) {
        match &mut open {
            Some(_) if text.trim() == "```" => {
                if let Some((true, block)) = open.take() {
                    found.push(block);
                }
            }
            Some((_, block)) => {
                block.text.push_str(text);
                block.text.push('\n');
            }
            None => {
                if let Some(fence) = text.trim_start().strip_prefix("```") {
                    let block = Block { section: section.clone(), line: line + 1, text: String::new() };
                    open = Some((fence.trim() == language, block));
                } else if let Some(heading) = text.strip_prefix("## ") {
                    heading.clone_into(&mut section);
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_what_stands_between_its_fences() {
        let page = "# A\n```sh\na\n```\n## B c\ntext\n```text\nno\n```\n  ```sh\nb\nc\n  ```\n";
        let found = blocks(page, "sh");
        let fields: Vec<_> =
            found.iter().map(|it| (it.section.as_str(), it.line, it.text.as_str())).collect();
        assert_eq!(fields, [("", 3, "a\n"), ("B c", 11, "b\nc\n")]);
    }
}
