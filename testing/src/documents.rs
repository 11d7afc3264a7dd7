//! The commands in a page of documentation, run as a reader runs them.
//!
//! A block fenced as `sh` is one script of bash. The blocks of a section (up to the next `## `) are run one after the
//! other in one folder of their own, with the tools, the scripts and the system's programs in `PATH`; a block that ends
//! with another exit status than 0 fails, with all that it said. What a block needs and a reader has, a *setting*
//! prepares: it is run before the section's first block, and after it the blocks see its folder and its variables.
//!
//! A line that a test must not take literally (a host, a path of the system) is replaced by the setting's
//! replacements. A block fenced as anything else is not run.

use std::process::{Command, Stdio};

use crate::{Run, Scratch};

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

/// Runs the blocks as one script each, in order, in the scratch folder; they share what one exports.
///
/// # Panics
/// When one fails.
#[track_caller]
pub fn run(scratch: &Scratch, page: &str, blocks: &[Block], replace: &[(&str, &str)], env: &[(&str, &str)]) {
    for block in blocks {
        let text = replace.iter().fold(block.text.clone(), |text, (from, to)| text.replace(from, to));
        let run = shell(scratch, &text, env);
        assert_eq!(
            run.code, 0,
            "{page}:{}\n{text}\nstdout:\n{}\nstderr:\n{}",
            block.line, run.stdout, run.stderr
        );
    }
}

/// One script of bash that ends at its first failing command.
pub fn shell(scratch: &Scratch, text: &str, env: &[(&str, &str)]) -> Run {
    let mut command: Command = scratch.script("bash");
    command.args(["-euo", "pipefail", "-c", text]).envs(env.iter().copied());
    Run::of(command.stdin(Stdio::null()).spawn().unwrap())
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
