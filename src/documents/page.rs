//! The frame of a page: the table of contents, the text, the headings of the page, and the neighbours of the page.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    INDEX, STYLE_NAME,
    markdown::{self, Heading},
    page_path,
    summary::{Entry, Summary},
};

/// A page with fewer sections has no list of them.
const SECTIONS_MIN: usize = 3;

/// The page of the file `path` with this text.
pub(super) fn render(path: &str, text: &str, summary: &Summary) -> String {
    let headings = markdown::headings(text);
    let title = headings.first().map_or("Documentation", |heading| &heading.text);
    // Relative, so that the pages also work below another address.
    let root = "../".repeat(path.matches('/').count());
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " – Passbook" }
                link rel="stylesheet" href={ (root) (STYLE_NAME) };
            }
            body {
                a class="skip" href="#text" { "Skip to the text" }
                header {
                    a class="brand" href={ (root) (page_path(INDEX)) } { "Passbook" }
                    a class="to-contents" href="#contents" { "Contents" }
                    a href="/swagger-ui/" { "Try the API" }
                    a href="/" { "Console" }
                }
                div class="columns" {
                    main id="text" {
                        (PreEscaped(markdown::to_html(path, text)))
                        (neighbours(path, &root, summary))
                    }
                    (contents(path, &root, summary))
                    (sections(&headings))
                }
            }
        }
    };
    page.into_string()
}

fn contents(path: &str, root: &str, summary: &Summary) -> Markup {
    html! {
        nav id="contents" aria-label="Contents" {
            @for part in &summary.parts {
                @if !part.title.is_empty() { h2 { (part.title) } }
                ul {
                    @for entry in &part.entries {
                        li { a href=(address(root, entry)) aria-current=[(entry.path == path).then_some("page")] { (entry.title) } }
                    }
                }
            }
        }
    }
}

fn sections(headings: &[Heading]) -> Markup {
    let sections: Vec<&Heading> = headings.iter().filter(|heading| heading.level == 2).collect();
    html! {
        @if sections.len() >= SECTIONS_MIN {
            nav id="sections" aria-label="On this page" {
                h2 { "On this page" }
                ul { @for section in sections { li { a href={ "#" (section.anchor) } { (section.text) } } } }
            }
        }
    }
}

fn neighbours(path: &str, root: &str, summary: &Summary) -> Markup {
    let (before, after) = summary.neighbours(path);
    html! {
        nav class="neighbours" aria-label="Previous and next page" {
            @if let Some(before) = before { a rel="prev" href=(address(root, before)) { "← " (before.title) } }
            @if let Some(after) = after { a rel="next" href=(address(root, after)) { (after.title) " →" } }
        }
    }
}

fn address(root: &str, entry: &Entry) -> String {
    format!("{root}{}", page_path(&entry.path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_the_contents_its_sections_and_its_neighbours() {
        let summary = Summary::parse("[Start](README.md)\n- [One](a/one.md)\n- [Two](two.md)\n");
        let page = render("a/one.md", "# One & all\n\n## A\n\n## B\n\n## C\n", &summary);
        assert!(page.contains("<title>One &amp; all – Passbook</title>"), "{page}");
        assert!(page.contains("href=\"../style.css\"") && page.contains("href=\"../index.html\""), "{page}");
        assert!(page.contains("<a href=\"../a/one.html\" aria-current=\"page\">One</a>"), "{page}");
        assert!(page.contains("<h2 id=\"b\">B</h2>") && page.contains("<a href=\"#b\">B</a>"), "{page}");
        assert!(page.contains("rel=\"next\" href=\"../two.html\""), "{page}");
    }
}
