//! The files of the project and the string literals in them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};
use syn::LitStr;

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files below a folder with this extension, sorted.
pub fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|found| found == extension) => found.push(path),
                false => {}
            }
        }
    }
    found.sort();
    found
}

/// The sources of the service and of all crates, without their test folders.
pub fn sources(extension: &str) -> Vec<PathBuf> {
    let crates = files("crates", extension);
    let in_source =
        |path: &PathBuf| path.strip_prefix(root()).unwrap().components().nth(2).unwrap().as_os_str() == "src";
    files("src", extension).into_iter().chain(crates.into_iter().filter(in_source)).collect()
}

/// The path of a file within the project.
pub fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

/// A source without its comment lines.
pub fn code(path: &Path) -> String {
    let source = fs::read_to_string(path).unwrap();
    source.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Every string literal of a source, also inside macros.
pub fn literals(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    collect_literals(source.parse().unwrap(), &mut found);
    found
}

fn collect_literals(tokens: TokenStream, found: &mut Vec<String>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => collect_literals(group.stream(), found),
            TokenTree::Literal(literal) => {
                let text = syn::parse2::<LitStr>(TokenTree::Literal(literal).into());
                found.extend(text.map(|text| text.value()));
            }
            TokenTree::Ident(_) | TokenTree::Punct(_) => {}
        }
    }
}

#[test]
fn string_literals_are_found_inside_macros_and_unescaped() {
    let source = r##"fn f() { query!("SELECT \"a\" \
        FROM b", r#"raw "x""#, 'c', b"bytes") }"##;
    assert_eq!(literals(source), [r#"SELECT "a" FROM b"#, r#"raw "x""#]);
}
