//! The documentation: the files of `docs/`, embedded in the binary. [`page()`] renders a Markdown file as a web page.
//!
//! `docs/SUMMARY.md` is the table of contents. Paths are relative to `docs/`, without a leading slash.

pub mod markdown;
mod page;
pub mod summary;

use std::borrow::Cow;

use rust_embed::RustEmbed;

use summary::Summary;

/// The page of the address `/docs/`.
pub const INDEX: &str = "README.md";
/// The table of contents.
pub const SUMMARY: &str = "SUMMARY.md";
/// The style sheet of all pages. It is no file of `docs/`.
pub const STYLE_NAME: &str = "style.css";
/// The content of the style sheet.
pub const STYLE: &str = include_str!("style.css");

#[derive(RustEmbed)]
#[folder = "docs/"]
struct Files;

/// A file as it is in `docs/`.
pub fn file(path: &str) -> Option<Cow<'static, [u8]>> {
    Some(Files::get(path)?.data)
}

/// The paths of all files.
pub fn paths() -> impl Iterator<Item = String> {
    Files::iter().map(Cow::into_owned)
}

/// The text of a Markdown file.
pub fn source(path: &str) -> Option<String> {
    String::from_utf8(file(path)?.into_owned()).ok()
}

/// The Markdown file of the page `tutorial.html`; `None` if the name is not that of a page.
pub fn source_path(page: &str) -> Option<String> {
    match page.strip_suffix(".html")? {
        "index" => Some(INDEX.to_owned()),
        name => Some(match name.strip_suffix("/index") {
            Some(folder) => format!("{folder}/{INDEX}"),
            None => format!("{name}.md"),
        }),
    }
}

/// The page of the Markdown file `tutorial.md`, relative like its argument.
pub fn page_path(source: &str) -> String {
    let name = source.strip_suffix(".md").unwrap_or(source);
    let name = name.strip_suffix("README").map_or_else(|| name.to_owned(), |folder| format!("{folder}index"));
    format!("{name}.html")
}

/// The page of a Markdown file as HTML; `None` if there is no such file, or it is the table of contents.
pub fn page(path: &str) -> Option<String> {
    let text = (path != SUMMARY).then(|| source(path)).flatten()?;
    let summary = Summary::parse(&source(SUMMARY)?);
    Some(page::render(path, &text, &summary))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The most bytes that the documentation may add to the binary.
    const DOCUMENTS_BYTES_MAX: usize = 1024 * 1024;

    #[test]
    fn pages_and_their_sources_have_the_same_names() {
        for source in ["README.md", "tutorial.md", "decisions/README.md", "decisions/0001-serve.md"] {
            assert_eq!(source_path(&page_path(source)).as_deref(), Some(source));
        }
        assert_eq!(page_path("README.md"), "index.html");
        assert_eq!(page_path("decisions/README.md"), "decisions/index.html");
        assert_eq!(source_path("console.png"), None);
    }

    #[test]
    fn the_documentation_is_small_enough_to_be_embedded() {
        let bytes: usize = paths().filter_map(|path| file(&path)).map(|file| file.len()).sum();
        assert!(bytes < DOCUMENTS_BYTES_MAX, "docs/ has {bytes} bytes");
    }

    #[test]
    fn every_markdown_file_but_the_summary_is_a_page() {
        let mut pages = 0;
        for path in paths().filter(|path| path.ends_with(".md")) {
            assert_eq!(page(&path).is_some(), path != SUMMARY, "{path}");
            pages += 1;
        }
        assert!(pages > 30, "only {pages} pages were found");
        assert_eq!(page("../README.md"), None);
    }
}
