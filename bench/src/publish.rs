//! Where the figures go: a page whose prose stays and whose tables stand between two markers, and a JSON file.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;

const PAGE: &str = "benchmarks.md";

/// Prints the tables of `command`, and writes them and the whole report into the folder `docs`.
pub fn publish(docs: &Path, command: &str, tables: &str, json: &str, report: &impl Serialize) -> Result<()> {
    print!("{tables}");
    let (page, json) = (docs.join(PAGE), docs.join(json));
    let text = serde_json::to_string_pretty(report).context("cannot write the report as JSON")?;
    fs::create_dir_all(docs).with_context(|| format!("cannot make {}", docs.display()))?;
    fs::write(&json, text + "\n").with_context(|| format!("cannot write {}", json.display()))?;
    let old = match fs::read_to_string(&page) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        read => read.with_context(|| format!("cannot read {}", page.display()))?,
    };
    fs::write(&page, between_markers(&old, command, tables)?)
        .with_context(|| format!("cannot write {}", page.display()))
}

/// The page with `tables` between the markers of `command`, which come last where there are none.
fn between_markers(page: &str, command: &str, tables: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- {command}: begin -->"), format!("<!-- {command}: end -->"));
    let (before, after) = match (page.split_once(&begin), page.split_once(&end)) {
        (Some((before, _)), Some((_, after))) => (before.to_owned(), after),
        (None, None) if page.is_empty() => (String::new(), "\n"),
        (None, None) => (format!("{}\n\n", page.trim_end()), "\n"),
        (Some(_), None) | (None, Some(_)) => bail!("{PAGE} has one of the markers {begin} and {end}, not the other"),
    };
    Ok(format!("{before}{begin}\n\n{}\n\n{end}{after}", tables.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::between_markers;

    #[test]
    fn what_stands_around_the_markers_stays() {
        let page = "# Figures\n\n<!-- bench run: begin -->\nold\n<!-- bench run: end -->\n\nProse.\n";
        let expected = "# Figures\n\n<!-- bench run: begin -->\n\nnew\n\n<!-- bench run: end -->\n\nProse.\n";
        assert_eq!(between_markers(page, "bench run", "new\n").expect("a page"), expected);
    }

    #[test]
    fn a_page_without_markers_gets_them_at_its_end() {
        let page = between_markers("Prose.\n", "bench grow", "new\n").expect("a page");
        assert_eq!(page, "Prose.\n\n<!-- bench grow: begin -->\n\nnew\n\n<!-- bench grow: end -->\n");
        let again = between_markers(&page, "bench grow", "new\n").expect("a page");
        assert_eq!(again, page);
    }

    #[test]
    fn half_a_pair_of_markers_is_refused() {
        assert!(between_markers("<!-- bench run: begin -->\n", "bench run", "new").is_err());
    }
}
