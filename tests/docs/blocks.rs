//! The fenced blocks of a document, and the rules for their languages.

use passbook::documents::markdown::parse;
use pulldown_cmark::{CodeBlockKind, Event, Tag, TagEnd};

/// The comment before a block of commands that no test executes.
const NOT_RUN: &str = "<!-- not run: ";
/// The shortest reason for it.
const REASON_CHARACTERS_MIN: usize = 10;

/// A block of a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// The words behind the fence: a language, then `output` or `file=<name>`.
    pub info: String,
    pub content: String,
    /// The HTML directly before the block.
    pub comment: String,
}

impl Block {
    pub fn language(&self) -> &str {
        self.info.split_whitespace().next().unwrap_or_default()
    }

    /// Whether it shows the output of the command before it.
    pub fn is_output(&self) -> bool {
        self.info.split_whitespace().nth(1) == Some("output")
    }

    /// The file that the reader is asked to write.
    pub fn file(&self) -> Option<&str> {
        self.info.split_whitespace().nth(1)?.strip_prefix("file=")
    }
}

/// The fenced blocks in their order.
pub fn blocks(markdown: &str) -> Vec<Block> {
    let (mut blocks, mut open, mut comment) = (Vec::new(), None::<Block>, String::new());
    for event in parse(markdown) {
        match (event, &mut open) {
            (Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))), _) => {
                open =
                    Some(Block { info: info.to_string(), comment: std::mem::take(&mut comment), ..Block::default() });
            }
            (Event::Text(text), Some(block)) => block.content.push_str(&text),
            (Event::End(TagEnd::CodeBlock), _) => blocks.extend(open.take()),
            (Event::Html(html), None) => comment.push_str(&html),
            (Event::Start(_), None) => comment.clear(),
            _ => {}
        }
    }
    blocks
}

/// What is wrong with a block; `None` if nothing.
fn flaw(block: &Block) -> Option<String> {
    match block.language() {
        "" => Some("has no language".to_owned()),
        "bash" | "shell" | "zsh" | "shell-session" | "sh-session" => {
            Some("must be `sh`, which is executed, or `console`, which is shown".to_owned())
        }
        "console" => {
            let reason = block.comment.trim().strip_prefix(NOT_RUN).and_then(|rest| rest.strip_suffix("-->"));
            let is_given = reason.is_some_and(|reason| reason.trim().len() >= REASON_CHARACTERS_MIN);
            (!is_given).then(|| format!("is not executed: put `{NOT_RUN}… -->` with the reason before it"))
        }
        _ => None,
    }
}

#[test]
fn every_block_of_commands_is_executed_or_says_why_not() {
    for document in crate::documents() {
        let document = crate::name(&document);
        for block in blocks(&crate::read(&document)) {
            if let Some(flaw) = flaw(&block) {
                panic!("{document}: this block {flaw}:\n{}", block.content);
            }
        }
    }
}

#[test]
fn blocks_without_language_or_reason_are_found() {
    let flaws = |markdown: &str| blocks(markdown).iter().map(|block| flaw(block).is_some()).collect::<Vec<_>>();
    assert_eq!(flaws("```\na\n```\n\n```bash\na\n```\n\n```console\n$ a\n```\n"), [true, true, true]);
    assert_eq!(flaws("<!-- not run: needs systemd -->\n```console\n$ a\n```\n\n```sh\na\n```\n"), [false, false]);
    assert_eq!(flaws("<!-- not run: needs systemd -->\n\nText.\n\n```console\n$ a\n```\n"), [true]);
}

#[test]
fn a_block_has_a_language_a_purpose_and_a_file() {
    let found = blocks("```json output\n{}\n```\n\n- ```typescript file=a.ts\n  b\n  ```\n");
    assert_eq!((found[0].language(), found[0].is_output(), found[0].file()), ("json", true, None));
    assert_eq!((found[1].language(), found[1].file(), &*found[1].content), ("typescript", Some("a.ts"), "b\n"));
}
