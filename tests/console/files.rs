//! The console's static files: headers, caching, content security policy, total size, and unmodified vendored libraries.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use passbook_domain::money;
use passbook_testkit::spawn_app;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::browser::Browser;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'sha256-jD4Z05YhQfBMFoOUheyIV7okH1fw2NqLo3kx8vPGIDs='; connect-src 'self'; img-src 'self' data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// The size of all files together, compressed with gzip.
const CONSOLE_BYTES_MAX: usize = 180 * 1024;

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
async fn files_have_a_content_type_an_etag_and_a_strict_policy() {
    let app = spawn_app().await;
    let teller = app.client();
    let paths = sources().into_iter().map(|name| format!("/{name}"));
    for path in paths.chain(["/".to_owned(), "/console/currencies.json".to_owned()]) {
        let served = teller.get(&path).await.expect(200);
        assert_eq!(served.header("content-security-policy"), Some(POLICY), "{path}");
        assert_eq!(served.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(served.header("cache-control"), Some("no-cache"), "{path}");
        assert!(!served.bytes.is_empty(), "{path}");
        let etag = served.header("etag").unwrap_or_else(|| panic!("{path} has no ETag"));
        let again = teller.with_header("if-none-match", etag).get(&path).await.expect(304);
        assert!(again.bytes.is_empty() && again.header("etag") == Some(etag), "{path}");
        teller.with_header("if-none-match", "\"another\"").get(&path).await.expect(200);
        let compressed = teller.with_header("accept-encoding", "gzip").get(&path).await.expect(200);
        let is_text = served.bytes.len() > 1_000 && !path.ends_with(".svg");
        assert!(!is_text || compressed.header("content-encoding") == Some("gzip"), "{path}");
    }
    let kinds = [("/", "text/html; charset=utf-8"), ("/console/main.js", "text/javascript; charset=utf-8")];
    for (path, kind) in kinds {
        assert_eq!(teller.get(path).await.header("content-type"), Some(kind));
    }
    for missing in [
        "/console/",
        "/console/nothing.js",
        "/console/package.json",
        "/console/..%2fCargo.toml",
        "/console/vendor",
        "/console/%2e%2e/Cargo.toml",
    ] {
        teller.get(missing).await.expect_problem(404, "not_found");
    }
}

#[tokio::test]
async fn console_stays_below_its_size_limit() {
    let mut bytes = 0;
    for name in sources() {
        let mut gzip = Command::new("gzip").arg("-6c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        gzip.stdin.take().unwrap().write_all(&fs::read(root().join(name)).unwrap()).unwrap();
        bytes += gzip.wait_with_output().unwrap().stdout.len();
    }
    assert!(bytes < CONSOLE_BYTES_MAX, "the compressed console is {bytes} bytes");
}

#[test]
fn vendored_libraries_match_their_npm_packages() {
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
fn javascript_unit_tests_pass() {
    let tested = Command::new("node").args(["--test", "tests/console/units/"]).current_dir(root()).output();
    let tested = tested.expect("this test needs Node.js 20 or newer");
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stdout));
}

#[tokio::test]
async fn amounts_use_the_currency_digits_of_the_service() {
    let app = spawn_app().await;
    let list: Vec<Value> = serde_json::from_slice(&app.client().get("/console/currencies.json").await.bytes).unwrap();
    let served: BTreeMap<&str, u64> =
        list.iter().map(|each| (each["code"].as_str().unwrap(), each["digits"].as_u64().unwrap())).collect();
    let known: BTreeMap<&str, u64> =
        money::currencies().map(|currency| (currency.code(), money::digits(currency).into())).collect();
    assert_eq!(served, known);
    for (code, digits) in [("EUR", 2), ("JPY", 0), ("BHD", 3), ("CLF", 4), ("ISK", 0), ("XAU", 0)] {
        assert_eq!(served[code], digits, "{code}");
    }
    // For some currencies the browser's own number of digits differs from ISO 4217, so the console must not use it.
    let browser = Browser::start(&app.url()).await;
    browser.open("accounts").await;
    let format_all = "import('/console/money.js').then(({formatMoney}) => %LIST%.map(({code, digits}) => [code,
        formatMoney(123456, {code, digits}, 'en').replace(/[^0-9.]/g, ''),
        new Intl.NumberFormat('en', {style: 'currency', currency: code}).resolvedOptions().maximumFractionDigits]))";
    let formatted = browser.evaluate(&format_all.replace("%LIST%", &json!(list).to_string())).await;
    let formatted: Vec<(String, String, u64)> = serde_json::from_value(formatted).unwrap();
    let mut deviations = vec![];
    for (code, amount, browser_digits) in &formatted {
        let digits = served[code.as_str()];
        let expected = match digits {
            0 => "123456".to_owned(),
            digits => {
                let at = 6 - usize::try_from(digits).unwrap();
                format!("{}.{}", &"123456"[..at], &"123456"[at..])
            }
        };
        assert_eq!(amount, &expected, "{code}");
        if *browser_digits != digits {
            deviations.push(format!("{code}: {browser_digits} instead of {digits}"));
        }
    }
    assert_eq!(formatted.len(), served.len());
    println!("browser digits that differ from the service: {}", deviations.join(", "));
}
