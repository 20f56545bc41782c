//! The site at `/docs/` as a browser sees it: every link leads to a page and an element of it, and no page needs anything that its
//! policy forbids.

use std::collections::{BTreeMap, BTreeSet};

use passbook_testkit::{folder::Folder, process::Passbook};

/// The addresses in `href` and `src` attributes.
fn targets(html: &str) -> BTreeSet<String> {
    let starts = ["href=\"", "src=\""];
    let targets = starts.iter().flat_map(|start| html.split(start).skip(1)).filter_map(|rest| rest.split_once('"'));
    targets.map(|(target, _)| target.replace("&amp;", "&")).collect()
}

/// The absolute path of a target of a page, and its anchor.
fn resolve(page: &str, target: &str) -> (String, Option<String>) {
    let base = reqwest::Url::parse("http://bank.example").unwrap().join(page).unwrap();
    let url = base.join(target).unwrap();
    (url.path().to_owned(), url.fragment().map(str::to_owned))
}

#[tokio::test]
async fn every_link_of_the_site_leads_to_a_page_and_an_element() {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).start();
    let mut pages: BTreeMap<String, String> = BTreeMap::new();
    let mut links: Vec<(String, String)> = Vec::new();
    let mut waiting = vec!["/docs/".to_owned()];
    while let Some(path) = waiting.pop() {
        if pages.contains_key(&path) {
            continue;
        }
        let response = service.client.get(&path).await;
        assert!(response.status().is_success(), "{path} is {}; linked from {links:?}", response.status());
        let is_page = response.headers()["content-type"].to_str().unwrap().starts_with("text/html");
        let content = response.bytes().await.unwrap();
        if !path.starts_with("/docs/") || !is_page {
            pages.insert(path, String::new());
            continue;
        }
        let html = String::from_utf8(content.to_vec()).unwrap();
        assert!(!html.contains("<script") && !html.contains(" style="), "{path} needs what its policy forbids");
        for target in
            targets(&html).into_iter().filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
        {
            waiting.push(resolve(&path, &target).0);
            links.push((path.clone(), target));
        }
        pages.insert(path, html);
    }
    for (page, target) in &links {
        let (path, Some(anchor)) = resolve(page, target) else { continue };
        assert!(
            pages[&path].contains(&format!("id=\"{anchor}\"")),
            "{page} links to {target}, which has no element {anchor}"
        );
    }
    let rendered = pages.values().filter(|html| !html.is_empty()).count();
    assert!(rendered > 50 && links.len() > 1_000, "only {rendered} pages with {} links were found", links.len());
}

#[tokio::test]
async fn pages_are_compressed_revalidated_and_load_nothing_from_elsewhere() {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).start();
    let get = async |path: &str, name: &str, value: &str| {
        let client = reqwest::Client::builder().no_gzip().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        client.get(format!("{}{path}", service.client.base_url())).header(name, value).send().await.unwrap()
    };
    let page = get("/docs/tutorial.html", "accept-encoding", "gzip").await;
    assert_eq!(page.headers()["content-encoding"], "gzip");
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'self'; img-src 'self';"), "{policy}");
    let tag = page.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(get("/docs/tutorial.html", "if-none-match", &tag).await.status(), 304);
    assert_eq!(get("/docs", "accept", "*/*").await.headers()["location"], "/docs/");
    for missing in
        ["/docs/none.html", "/docs/SUMMARY.html", "/docs/tutorial.md", "/docs/../Cargo.toml", "/docs/%2e%2e/Cargo.toml"]
    {
        assert_eq!(get(missing, "accept", "*/*").await.status(), 404, "{missing}");
    }
}
