//! The console's files: small, kept by browsers, allowed to load nothing from elsewhere, and what their packages hold.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use passbook::domain::money;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{browser::Browser, support::spawn_app};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// All of it together, compressed.
const CONSOLE_BYTES_MAX: usize = 150 * 1024;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<String> {
    let files =
        fs::read_dir(root().join("console")).unwrap().chain(fs::read_dir(root().join("console/vendor")).unwrap());
    let names = files.map(|file| file.unwrap().path().strip_prefix(root()).unwrap().display().to_string());
    names.filter(|name| [".js", ".css", ".html", ".svg", ".txt"].iter().any(|ending| name.ends_with(ending))).collect()
}

#[tokio::test]
async fn every_file_is_served_with_its_type_a_tag_and_a_strict_policy() {
    let app = spawn_app().await;
    let teller = app.teller();
    let paths = sources().into_iter().map(|name| format!("/{name}"));
    for path in paths.chain(["/".to_owned(), "/console/currencies.json".to_owned()]) {
        let served = teller.get(&path).await.expect(200);
        assert_eq!(served.header("content-security-policy"), Some(POLICY), "{path}");
        assert_eq!(served.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(served.header("cache-control"), Some("no-cache"), "{path}");
        assert!(!served.bytes.is_empty(), "{path}");
        let etag = served.header("etag").unwrap_or_else(|| panic!("{path} has no ETag"));
        let again = teller.with("if-none-match", etag).get(&path).await.expect(304);
        assert!(again.bytes.is_empty() && again.header("etag") == Some(etag), "{path}");
        teller.with("if-none-match", "\"another\"").get(&path).await.expect(200);
        let zipped = teller.with("accept-encoding", "gzip").get(&path).await.expect(200);
        let is_text = served.bytes.len() > 1_000 && !path.ends_with(".svg");
        assert!(!is_text || zipped.header("content-encoding") == Some("gzip"), "{path}");
    }
    let kinds = [("/", "text/html; charset=utf-8"), ("/console/main.js", "text/javascript; charset=utf-8")];
    for (path, kind) in kinds {
        assert_eq!(teller.get(path).await.header("content-type"), Some(kind));
    }
    for none in [
        "/console/",
        "/console/nothing.js",
        "/console/package.json",
        "/console/..%2fCargo.toml",
        "/console/vendor",
        "/console/%2e%2e/Cargo.toml",
    ] {
        teller.get(none).await.refused(404, "not_found");
    }
}

#[tokio::test]
async fn all_of_it_is_small() {
    let mut bytes = 0;
    for name in sources() {
        let mut gzip = Command::new("gzip").arg("-6c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        gzip.stdin.take().unwrap().write_all(&fs::read(root().join(name)).unwrap()).unwrap();
        bytes += gzip.wait_with_output().unwrap().stdout.len();
    }
    assert!(bytes < CONSOLE_BYTES_MAX, "the console has {bytes} bytes");
}

#[test]
fn what_others_wrote_is_what_their_packages_hold() {
    let checked = Command::new(root().join("scripts/vendor-console")).arg("--check").output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let list = fs::read_to_string(root().join("console/vendor/versions.tsv")).unwrap();
    for row in list.lines().skip(1) {
        let [file, package, version, licence, _, sum] = row.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{row}")
        };
        let content = fs::read(root().join("console/vendor").join(file)).unwrap();
        assert_eq!(hex::encode(Sha256::digest(content)), sum, "{file}");
        assert!(version.split('.').count() == 3 && ["MIT", "Apache-2.0"].contains(&licence), "{row}");
        assert!(root().join(format!("console/vendor/{package}-LICENSE.txt")).exists(), "{package}");
    }
}

#[test]
fn the_parts_without_a_page_keep_their_rules() {
    let tested = Command::new("node").args(["--test", "tests/console/units/"]).current_dir(root()).output();
    let tested = tested.expect("this test needs Node.js 20 or newer");
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stdout));
}

#[tokio::test]
async fn the_digits_of_every_currency_are_the_services_own_and_browsers_write_them() {
    let app = spawn_app().await;
    let list: Vec<Value> = serde_json::from_slice(&app.teller().get("/console/currencies.json").await.bytes).unwrap();
    let told: BTreeMap<&str, u64> =
        list.iter().map(|each| (each["code"].as_str().unwrap(), each["digits"].as_u64().unwrap())).collect();
    let known: BTreeMap<&str, u64> =
        money::currencies().map(|currency| (currency.code(), money::digits(currency).into())).collect();
    assert_eq!(told, known);
    for (code, digits) in [("EUR", 2), ("JPY", 0), ("BHD", 3), ("CLF", 4), ("ISK", 0), ("XAU", 0)] {
        assert_eq!(told[code], digits, "{code}");
    }
    // What a browser believes by itself is wrong by a hundred for some: the console must not ask it.
    let browser = Browser::at(&app.url()).await;
    browser.open("accounts").await;
    let write = "import('/console/money.js').then(({formatMoney}) => %LIST%.map(({code, digits}) => [code,
        formatMoney(123456, {code, digits}, 'en').replace(/[^0-9.]/g, ''),
        new Intl.NumberFormat('en', {style: 'currency', currency: code}).resolvedOptions().maximumFractionDigits]))";
    let written = browser.ask(&write.replace("%LIST%", &json!(list).to_string())).await;
    let written: Vec<(String, String, u64)> = serde_json::from_value(written).unwrap();
    let mut otherwise = vec![];
    for (code, amount, believed) in &written {
        let digits = told[code.as_str()];
        let expected = match digits {
            0 => "123456".to_owned(),
            digits => {
                let at = 6 - usize::try_from(digits).unwrap();
                format!("{}.{}", &"123456"[..at], &"123456"[at..])
            }
        };
        assert_eq!(amount, &expected, "{code}");
        if *believed != digits {
            otherwise.push(format!("{code}: {believed} in place of {digits}"));
        }
    }
    assert_eq!(written.len(), told.len());
    println!("browsers believe otherwise of {}", otherwise.join(", "));
}
