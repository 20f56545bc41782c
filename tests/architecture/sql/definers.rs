//! A function with the rights of its owner names the schemas that it searches. Without them, or with the caller's temporary tables
//! before them, a caller could put a table of its own in place of one that the function changes.

use std::{collections::BTreeMap, fs};

use sqlparser::tokenizer::Token;

use super::{dollar_quoted, plpgsql, split, text};
use crate::sources::{files, name, sources};

/// What decides whether names in a function resolve to objects of its caller.
#[derive(Debug, PartialEq, Eq)]
struct Function {
    /// SECURITY DEFINER.
    has_rights_of_owner: bool,
    /// The value of its search_path.
    search_path: Option<String>,
}

impl Function {
    /// Schemas, and last the one of temporary tables. Postgres searches that one first if it is not named.
    fn is_safe(&self) -> bool {
        let schemas = self.search_path.iter().flat_map(|path| path.split(',')).map(str::trim).collect::<Vec<_>>();
        !self.has_rights_of_owner
            || (schemas.len() > 1 && schemas.iter().position(|name| *name == "pg_temp") == Some(schemas.len() - 1))
    }
}

/// Applies the statements of a script that create or alter functions, also those that its DO blocks execute by their text.
fn apply(script: &str, functions: &mut BTreeMap<String, Function>) {
    for tokens in split(script) {
        let header = text(&tokens.iter().filter(|token| !is_body(token)).cloned().collect::<Vec<_>>());
        let header = header.replace("CREATE OR REPLACE ", "CREATE ");
        let words: Vec<&str> = header.split([' ', '(']).filter(|word| !word.is_empty()).collect();
        match words[..] {
            ["CREATE", "FUNCTION" | "PROCEDURE", function, ..] => {
                let created = Function {
                    has_rights_of_owner: header.contains("SECURITY DEFINER"),
                    search_path: search_path(&header),
                };
                functions.insert(function.to_owned(), created);
            }
            ["ALTER", "FUNCTION" | "PROCEDURE", function, ..] => {
                let altered = functions.get_mut(function).unwrap_or_else(|| panic!("{header} alters no function"));
                altered.has_rights_of_owner |= header.contains("SECURITY DEFINER");
                altered.has_rights_of_owner &= !header.contains("SECURITY INVOKER");
                let is_reset = header.contains("RESET ALL") || header.contains("RESET search_path");
                altered.search_path = search_path(&header).or(altered.search_path.take().filter(|_| !is_reset));
            }
            ["DO", ..] => executed(&dollar_quoted(&tokens).unwrap()).iter().for_each(|text| apply(text, functions)),
            _ => {}
        }
    }
}

fn is_body(token: &Token) -> bool {
    matches!(token, Token::DollarQuotedString(_))
}

/// The texts in a DO block that are statements about functions.
fn executed(body: &str) -> Vec<String> {
    let tokens = plpgsql::statements(body).into_iter().flatten();
    let literals = tokens.filter_map(|token| match token {
        Token::SingleQuotedString(literal) => Some(literal),
        _ => None,
    });
    literals.filter(|literal| literal.starts_with("ALTER FUNCTION") || literal.starts_with("CREATE")).collect()
}

/// The value that a header sets.
fn search_path(header: &str) -> Option<String> {
    let value = header.split_once("SET search_path = ").or_else(|| header.split_once("SET search_path TO "))?.1;
    let words = value.split(' ').take_while(|word| !["SET", "AS", "RESET"].contains(word));
    Some(words.collect::<Vec<_>>().join(" "))
}

/// The functions after a script.
fn after(script: &str) -> BTreeMap<String, Function> {
    let mut functions = BTreeMap::new();
    apply(script, &mut functions);
    functions
}

#[test]
fn functions_with_the_rights_of_their_owner_search_named_schemas() {
    let mut functions = BTreeMap::new();
    for path in files("migrations", "sql").into_iter().chain(sources("sql")) {
        apply(&fs::read_to_string(&path).unwrap(), &mut functions);
    }
    let unsafe_ones: Vec<_> = functions.iter().filter(|(_, function)| !function.is_safe()).collect();
    assert!(unsafe_ones.is_empty(), "a search_path with pg_temp at its end is missing: {unsafe_ones:#?}");
    let found = functions.iter().filter(|(_, function)| function.has_rights_of_owner).map(|(name, _)| name.as_str());
    assert_eq!(found.collect::<Vec<_>>(), ["delete_old_keys", "keep_shards"]);
    // The text of a source could create another one.
    for path in sources("rs") {
        assert!(!fs::read_to_string(&path).unwrap().contains("SECURITY DEFINER"), "{}", name(&path));
    }
}

#[test]
fn a_function_without_a_safe_search_path_is_detected() {
    let create = |options: &str| format!("CREATE OR REPLACE FUNCTION f(a text) RETURNS void LANGUAGE sql {options}");
    let body = "AS $$ SELECT 'SET search_path = s, pg_temp' $$;";
    for wrong in [
        create(&format!("SECURITY DEFINER {body}")),
        create(&format!("SECURITY DEFINER SET search_path = s {body}")),
        create(&format!("SECURITY DEFINER SET search_path = pg_temp {body}")),
        create(&format!("SECURITY DEFINER SET search_path = pg_temp, s {body}")),
        create(&format!("{body} ALTER FUNCTION f SECURITY DEFINER;")),
        create(&format!("SECURITY DEFINER SET search_path = s, pg_temp {body} ALTER FUNCTION f RESET ALL;")),
        // The new function has no setting of the old one.
        create(&format!("SECURITY DEFINER SET search_path = s, pg_temp {body}"))
            + &create(&format!("SECURITY DEFINER {body}")),
    ] {
        assert!(!after(&wrong)["f"].is_safe(), "{wrong}");
    }
    for right in [
        create(body),
        create(&format!("SECURITY DEFINER SET search_path = s, pg_temp {body}")),
        create(&format!(
            "{body} ALTER FUNCTION f SECURITY DEFINER SET search_path TO s, pg_temp RESET plan_cache_mode;"
        )),
        create(&format!("SECURITY DEFINER SET enable_seqscan = off {body}"))
            + "DO $$ BEGIN EXECUTE format('ALTER FUNCTION f SET search_path = %I, pg_temp', current_schema()); END $$;",
        create(&format!("SECURITY DEFINER SET search_path = s, pg_temp SET enable_seqscan = off {body}")),
    ] {
        assert!(after(&right)["f"].is_safe(), "{right}");
    }
}
