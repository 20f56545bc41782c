//! Writes a report into the documentation: the tables between two markers of a page, and all figures as a JSON file.
//!
//! The text outside the markers is written by hand and stays as it is.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;

const PAGE: &str = "benchmarks.md";

/// Prints the tables of `command`, and writes the tables and the JSON report into the folder `docs`.
pub fn publish(docs: &Path, command: &str, tables: &str, json: &str, report: &impl Serialize) -> Result<()> {
    print!("{tables}");
    let (page, json) = (docs.join(PAGE), docs.join(json));
    let text = serde_json::to_string_pretty(report).context("cannot serialize the report")?;
    fs::create_dir_all(docs).with_context(|| format!("cannot create {}", docs.display()))?;
    fs::write(&json, text + "\n").with_context(|| format!("cannot write {}", json.display()))?;
    let old = match fs::read_to_string(&page) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        read => read.with_context(|| format!("cannot read {}", page.display()))?,
    };
    fs::write(&page, replace_between_markers(&old, command, tables)?)
        .with_context(|| format!("cannot write {}", page.display()))
}

/// Replaces the text between the markers of `command` with `tables`. Missing markers are appended to the page.
fn replace_between_markers(page: &str, command: &str, tables: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- {command}: begin -->"), format!("<!-- {command}: end -->"));
    let (before, after) = match (page.split_once(&begin), page.split_once(&end)) {
        (Some((before, _)), Some((_, after))) => (before.to_owned(), after),
        (None, None) if page.is_empty() => (String::new(), "\n"),
        (None, None) => (format!("{}\n\n", page.trim_end()), "\n"),
        (Some(_), None) | (None, Some(_)) => bail!("{PAGE} must contain both markers {begin} and {end}, or neither"),
    };
    Ok(format!("{before}{begin}\n\n{}\n\n{end}{after}", tables.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::replace_between_markers;

    #[test]
    fn the_text_outside_the_markers_is_unchanged() {
        let page = "# Figures\n\n<!-- bench run: begin -->\nold\n<!-- bench run: end -->\n\nProse.\n";
        let expected = "# Figures\n\n<!-- bench run: begin -->\n\nnew\n\n<!-- bench run: end -->\n\nProse.\n";
        assert_eq!(replace_between_markers(page, "bench run", "new\n").expect("a page"), expected);
    }

    #[test]
    fn missing_markers_are_appended_to_the_page() {
        let page = replace_between_markers("Prose.\n", "bench grow", "new\n").expect("a page");
        assert_eq!(page, "Prose.\n\n<!-- bench grow: begin -->\n\nnew\n\n<!-- bench grow: end -->\n");
        let again = replace_between_markers(&page, "bench grow", "new\n").expect("a page");
        assert_eq!(again, page);
    }

    #[test]
    fn a_single_marker_is_an_error() {
        assert!(replace_between_markers("<!-- bench run: begin -->\n", "bench run", "new").is_err());
    }
}
