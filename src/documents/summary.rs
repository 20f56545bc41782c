//! The table of contents: `docs/SUMMARY.md`, in the format of mdBook. A heading begins a part, each item of a list is a page.

use pulldown_cmark::{Event, Tag, TagEnd};

use super::markdown;

/// A page in the table of contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The text of the link.
    pub title: String,
    /// The Markdown file.
    pub path: String,
}

/// A part of the table of contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The heading; empty for the pages before the first one.
    pub title: String,
    /// The pages in their order.
    pub entries: Vec<Entry>,
}

/// The table of contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The parts in their order.
    pub parts: Vec<Part>,
}

impl Summary {
    /// Parses `SUMMARY.md`. Its own title, the heading of level 1 at the beginning, is no part.
    pub fn parse(markdown: &str) -> Self {
        let mut parts = vec![Part::default()];
        let (mut text, mut path) = (String::new(), None);
        for event in markdown::parse(markdown) {
            match event {
                Event::Start(Tag::Heading { .. }) => text.clear(),
                Event::Start(Tag::Link { dest_url, .. }) => {
                    text.clear();
                    path = Some(dest_url.to_string());
                }
                Event::Text(part) | Event::Code(part) => text.push_str(&part),
                Event::End(TagEnd::Heading(_)) if text != "Summary" => {
                    parts.push(Part { title: text.clone(), entries: Vec::new() });
                }
                Event::End(TagEnd::Link) => {
                    if let (Some(part), Some(path)) = (parts.last_mut(), path.take()) {
                        part.entries.push(Entry { title: text.clone(), path });
                    }
                }
                _ => {}
            }
        }
        parts.retain(|part| !part.entries.is_empty());
        Self { parts }
    }

    /// All pages in their order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.parts.iter().flat_map(|part| &part.entries)
    }

    /// The pages before and after a page.
    pub fn neighbours(&self, path: &str) -> (Option<&Entry>, Option<&Entry>) {
        let entries: Vec<&Entry> = self.entries().collect();
        let Some(index) = entries.iter().position(|entry| entry.path == path) else { return (None, None) };
        let before = index.checked_sub(1).and_then(|before| entries.get(before)).copied();
        (before, entries.get(index + 1).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_are_parts_and_links_are_pages() {
        let summary = Summary::parse(
            "# Summary\n\n[Start](README.md)\n\n# How-to\n\n- [Import](import.md)\n  - [More](more.md)\n\n# Empty\n",
        );
        let titles: Vec<_> = summary.parts.iter().map(|part| (&*part.title, part.entries.len())).collect();
        assert_eq!(titles, [("", 1), ("How-to", 2)]);
        let (before, after) = summary.neighbours("import.md");
        assert_eq!((before.map(|page| &*page.title), after.map(|page| &*page.path)), (Some("Start"), Some("more.md")));
        assert_eq!(summary.neighbours("none.md"), (None, None));
    }
}
