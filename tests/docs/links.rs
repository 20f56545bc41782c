//! Every link between the documents leads to a file, and its anchor to a heading. The table of contents has every page.

use std::path::Path;

use passbook::documents::{
    markdown::{headings, is_external, links},
    summary::Summary,
};

/// What is wrong with a link of a document; `None` if nothing. Addresses outside the repository are only checked for their scheme,
/// because tests have no network.
fn flaw(document: &Path, target: &str) -> Option<&'static str> {
    if is_external(target) {
        let is_known = ["https://", "http://127.0.0.1:8080", "mailto:"].iter().any(|start| target.starts_with(start));
        return (!is_known).then_some("has an unknown scheme");
    }
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let path = if file.is_empty() { document.to_owned() } else { document.parent().unwrap().join(file) };
    if !path.exists() {
        return Some("leads to no file");
    }
    let anchor = anchor?;
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    (!headings(&text).iter().any(|heading| heading.anchor == anchor)).then_some("leads to no heading")
}

#[test]
fn every_link_between_the_documents_leads_to_a_file_and_a_heading() {
    let mut count = 0;
    for document in crate::documents() {
        for target in links(&std::fs::read_to_string(&document).unwrap()) {
            count += 1;
            if let Some(flaw) = flaw(&document, &target) {
                panic!("{}: the link {target} {flaw}", crate::name(&document));
            }
        }
    }
    assert!(count > 100, "only {count} links were found");
}

#[test]
fn broken_links_are_found() {
    let document = crate::root().join("docs/tls.md");
    assert_eq!(flaw(&document, "security.md#scopes"), None);
    assert_eq!(flaw(&document, "#caddy"), None);
    assert_eq!(flaw(&document, "security.md#no-such-heading"), Some("leads to no heading"));
    assert_eq!(flaw(&document, "no-such-file.md"), Some("leads to no file"));
    assert_eq!(flaw(&document, "ftp://example.org"), Some("has an unknown scheme"));
}

#[test]
fn the_table_of_contents_has_every_page_once() {
    let summary = Summary::parse(&crate::read("docs/SUMMARY.md"));
    let entries: Vec<&str> = summary.entries().map(|entry| entry.path.as_str()).collect();
    for document in crate::documents() {
        let name = crate::name(&document);
        let Some(page) = name.strip_prefix("docs/").filter(|page| *page != "SUMMARY.md") else { continue };
        // The decisions have a list of their own.
        let expected = usize::from(!page.starts_with("decisions/0"));
        let found = entries.iter().filter(|entry| **entry == page).count();
        assert_eq!(found, expected, "docs/SUMMARY.md has {page} {found} times");
    }
}
