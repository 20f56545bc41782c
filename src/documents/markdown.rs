//! Markdown as the documentation uses it: its headings with their anchors, its links, and its HTML.

use std::collections::HashMap;

use pulldown_cmark::{CowStr, Event, HeadingLevel, Options, Parser, Tag, TagEnd, html};

use super::page_path;

/// A heading and the anchor that leads to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heading {
    /// 1 for the title of the page.
    pub level: u8,
    /// The part of an address behind `#`.
    pub anchor: String,
    /// The text without markup.
    pub text: String,
}

/// The events of a text. Tables are the only extension.
pub fn parse(markdown: &str) -> Parser<'_> {
    Parser::new_ext(markdown, Options::ENABLE_TABLES)
}

/// The headings in their order. Their anchors are those of mdBook and of the usual forges.
pub fn headings(markdown: &str) -> Vec<Heading> {
    let mut headings: Vec<Heading> = Vec::new();
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut text: Option<String> = None;
    for event in parse(markdown) {
        match (event, &mut text) {
            (Event::Start(Tag::Heading { .. }), _) => text = Some(String::new()),
            (Event::Text(part) | Event::Code(part), Some(text)) => text.push_str(&part),
            (Event::End(TagEnd::Heading(level)), _) => {
                let text = text.take().unwrap_or_default();
                let base = anchor(&text);
                let earlier = seen.entry(base.clone()).or_default();
                let anchor = if *earlier == 0 { base } else { format!("{base}-{earlier}") };
                *earlier += 1;
                headings.push(Heading { level: number(level), anchor, text });
            }
            _ => {}
        }
    }
    headings
}

fn number(level: HeadingLevel) -> u8 {
    level as u8
}

/// The anchor of a heading that is the first of its text.
fn anchor(text: &str) -> String {
    let kept = text.trim().chars().filter_map(|character| match character {
        ' ' => Some('-'),
        character if character.is_alphanumeric() || matches!(character, '-' | '_') => Some(character),
        _ => None,
    });
    kept.flat_map(char::to_lowercase).collect()
}

/// The targets of all links and images.
pub fn links(markdown: &str) -> Vec<String> {
    let targets = parse(markdown).filter_map(|event| match event {
        Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => Some(dest_url.to_string()),
        _ => None,
    });
    targets.collect()
}

/// Whether a target is outside the site, such as `https://…` and `mailto:…`.
pub fn is_external(target: &str) -> bool {
    target.split_once(':').is_some_and(|(scheme, _)| scheme.chars().all(|character| character.is_ascii_alphabetic()))
}

/// The path to which a relative target leads from a file, both below `docs/`; `None` if it leaves `docs/`.
pub fn resolve(from: &str, target: &str) -> Option<String> {
    let mut folders: Vec<&str> = from.split('/').collect();
    folders.pop();
    for part in target.split('/') {
        match part {
            "." | "" => {}
            ".." => {
                folders.pop()?;
            }
            name => folders.push(name),
        }
    }
    Some(folders.join("/"))
}

/// The HTML of a file. Links to Markdown files become links to their pages. A link to a file of the source tree outside `docs/` is
/// shown as text. HTML within the Markdown is left out.
pub fn to_html(path: &str, markdown: &str) -> String {
    let mut anchors = headings(markdown).into_iter().map(|heading| heading.anchor);
    let mut is_within_dropped_link = false;
    let events = parse(markdown).filter_map(|event| match event {
        Event::Html(_) | Event::InlineHtml(_) => None,
        Event::Start(Tag::Heading { level, .. }) => {
            let id = anchors.next().map(CowStr::from);
            Some(Event::Start(Tag::Heading { level, id, classes: Vec::new(), attrs: Vec::new() }))
        }
        Event::Start(Tag::Link { link_type, dest_url, title, id }) => {
            let target = page_target(path, &dest_url);
            is_within_dropped_link = target.is_none();
            Some(Event::Start(Tag::Link { link_type, dest_url: target?.into(), title, id }))
        }
        Event::End(TagEnd::Link) if is_within_dropped_link => None,
        event => Some(event),
    });
    let mut page = String::with_capacity(markdown.len() * 2);
    html::push_html(&mut page, framed_tables(events));
    // The policy of the pages forbids styles in attributes.
    page.replace(" style=\"text-align: right\"", " class=\"right\"").replace(" style=\"text-align: left\"", "")
}

/// Puts each table into an element that scrolls by itself on a narrow screen.
fn framed_tables<'a>(events: impl Iterator<Item = Event<'a>>) -> impl Iterator<Item = Event<'a>> {
    events
        .flat_map(|event| match event {
            Event::Start(Tag::Table(_)) => {
                [Some(Event::Html("<div class=\"table\" tabindex=\"0\">".into())), Some(event)]
            }
            Event::End(TagEnd::Table) => [Some(event), Some(Event::Html("</div>".into()))],
            event => [Some(event), None],
        })
        .flatten()
}

/// The target of a link in the site; `None` if the site does not have it.
fn page_target(path: &str, target: &str) -> Option<String> {
    if is_external(target) || target.starts_with('#') {
        return Some(target.to_owned());
    }
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    super::file(&resolve(path, file)?)?;
    let page = if file.ends_with(".md") { page_path(file) } else { file.to_owned() };
    Some(anchor.map_or_else(|| page.clone(), |anchor| format!("{page}#{anchor}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_have_the_anchors_of_a_forge() {
        let found = headings("# A: `b/c` is_1\n\n## Again\n\n### Again\n\n```sh\n# no heading\n```\n");
        let found: Vec<_> = found.iter().map(|heading| (heading.level, &*heading.anchor, &*heading.text)).collect();
        assert_eq!(found, [(1, "a-bc-is_1", "A: b/c is_1"), (2, "again", "Again"), (3, "again-1", "Again")]);
    }

    #[test]
    fn links_lead_to_pages_and_those_out_of_the_site_are_text() {
        let html =
            to_html("decisions/README.md", "[a](../README.md#run-it) [b](../../src) [`c`](https://x.example/y.md)");
        assert!(
            html.contains("<a href=\"../index.html#run-it\">a</a> b <a href=\"https://x.example/y.md\">"),
            "{html}"
        );
    }

    #[test]
    fn html_within_the_text_is_left_out_and_tables_have_no_styles() {
        let html = to_html("a.md", "<script>alert(1)</script>\n\na <b>c</b>\n\n| a | b |\n|--:|:--|\n| 1 | < |\n");
        assert!(!html.contains("script") && !html.contains("<b>") && !html.contains("style"), "{html}");
        assert!(html.contains("<td class=\"right\">1</td><td>&lt;</td>"), "{html}");
        assert!(html.contains("<div class=\"table\" tabindex=\"0\"><table>"), "{html}");
    }

    #[test]
    fn a_relative_target_is_resolved_within_docs() {
        assert_eq!(resolve("decisions/0001.md", "../tls.md").as_deref(), Some("tls.md"));
        assert_eq!(resolve("tls.md", "./reference/api.md").as_deref(), Some("reference/api.md"));
        assert_eq!(resolve("tls.md", "../Cargo.toml"), None);
    }
}
