//! One evidence on a command line: `--evidence type=log,path=…,summary=…[,ref=…]`.

use serde_json::{Map, Value};

use super::Evidence;
use crate::text;

impl Evidence {
    /// Reads the flag `--evidence type=log,path=…,summary=…[,ref=…]` into the JSON of one evidence. A comma
    /// splits only right before one of the four names, so that paths and sentences may hold commas.
    ///
    /// # Errors
    /// A sentence for people: a name that is unknown, given twice or missing.
    pub fn from_flag(flag: &str) -> Result<Value, String> {
        const NAMES: [&str; 4] = ["type", "path", "summary", "ref"];
        const FORM: &str = "expected type=…,path=…,summary=…[,ref=…]";
        let name_at = |at: usize| {
            NAMES.into_iter().find(|name| {
                flag[at..].strip_prefix(name).is_some_and(|rest| rest.starts_with('='))
                    && (at == 0 || flag.as_bytes()[at - 1] == b',')
            })
        };
        let mut starts = flag.char_indices().filter_map(|(at, _)| Some((at, name_at(at)?))).peekable();
        if starts.peek().is_none_or(|(at, _)| *at > 0) {
            let word = flag.split(['=', ',']).next().unwrap_or_default();
            let meant = text::nearest(word, NAMES).filter(|_| !word.is_empty());
            let hint = meant.map(|it| format!("; did you mean \"{it}\"?")).unwrap_or_default();
            return Err(format!("unknown name {}{hint}; {FORM}", text::quoted(word)));
        }
        let mut evidence = Map::new();
        while let Some((at, name)) = starts.next() {
            let end = starts.peek().map_or(flag.len(), |(next, _)| next - 1);
            let value = &flag[at + name.len() + 1..end];
            if name == "type" && value.contains(',') {
                let shown = text::quoted(value);
                return Err(format!(
                    "type {shown} holds a comma; a comma splits only right before type=, path=, summary= and ref="
                ));
            }
            if evidence.insert(name.to_owned(), Value::from(value)).is_some() {
                return Err(format!("{name}= is given twice; {FORM}"));
            }
        }
        match ["type", "path", "summary"].into_iter().find(|it| !evidence.contains_key(*it)) {
            Some(name) => Err(format!("{name}= is missing; {FORM}")),
            None => Ok(Value::Object(evidence)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_evidence_flag_splits_only_before_its_names() {
        let read = |flag| Evidence::from_flag(flag);
        assert_eq!(
            read("type=log,path=a,b=c.log,summary=done, at last, ref=x,ref=sha256:00").unwrap(),
            json!({"type": "log", "path": "a,b=c.log", "summary": "done, at last, ref=x", "ref": "sha256:00"})
        );
        assert_eq!(
            read("summary=s,type=doc,path=ü,ref=").unwrap(),
            json!({"type": "doc", "path": "ü", "summary": "s", "ref": ""})
        );
        let refused = |flag| read(flag).unwrap_err();
        let form = "expected type=…,path=…,summary=…[,ref=…]";
        assert_eq!(
            refused("typ=log,path=p,summary=s"),
            format!("unknown name \"typ\"; did you mean \"type\"?; {form}")
        );
        assert_eq!(refused(""), format!("unknown name \"\"; {form}"));
        assert_eq!(refused("deploy.log"), format!("unknown name \"deploy.log\"; {form}"));
        assert_eq!(refused("type=log,path=p,path=q,summary=s"), format!("path= is given twice; {form}"));
        assert_eq!(refused("type=log,path=p"), format!("summary= is missing; {form}"));
        assert!(refused("type=log, path=p,summary=s").starts_with("type \"log, path=p\" holds a comma"));
    }
}
