//! Invalid query parameters and cursors of reads are refused.

use crate::invalid_input::fixture;

#[tokio::test]
async fn invalid_query_parameters_of_reads_are_refused() {
    let fixture = fixture().await;
    let one = format!("/v1/accounts/{}", fixture.account);
    let movements = format!("{one}/transactions");
    let days = format!("{one}/daily-balances");
    let transfer = format!("/v1/transfers/{}", fixture.account);
    let owner = format!("owner={}", "ä".repeat(256));
    // A time before the earliest one that Postgres can represent.
    let too_early = format!("after=a-fffffffffffffff{}", fixture.account.simple());
    let for_lists = "limit=0 limit=1001 limit=-1 limit=x limit= limit=1.0 limit=9223372036854775808 limit=1&limit=1 \
                    limits=1 after= after=x after=a after=v after=v-1 after=17 after=v9223372036854775808";
    let for_accounts = format!("status=gone status=Open status= owner= owner=%00 {owner} kind=deposit {too_early}");
    let for_movements = "kind=gift kind= owner=anna from=yesterday from= from=2026-13-01T00:00:00Z to=1700000000 \
                        to=2026-01-31 to=2026-01-31T12:00:00 to=2026-01-31T12:00:00+01:00 \
                        from=2026-02-01T00:00:00Z&to=2026-01-31T00:00:00Z from=2026-12-31T23:59:60Z \
                        from=2026-01-31%2012:00:00Z from=2026-01-31T12:00:00\u{2212}01:00 from=2026-01-31T12:00:00.Z \
                        from=2026-01-31T12:00:00.1234567891Z from=2026-01-31T12:00:00%2B24:00 from=2026-01-31T12:00:00%2B01 \
                        from=2026-01-31T12:00:00%2B01:60 from=2026-01-31T24:00:00Z from=%2B2026-01-31T12:00:00Z";
    let for_days = "from= to= from=yesterday to=2026-02-30 from=2026-1-31 from=26-01-31 to=2026-01-31T00:00:00Z \
                   from=-026-01-31 from=%2B026-01-31 to=12026-01-31 to=20260131 from=2026-02-01&to=2026-01-31 \
                   from=2026-01-31&from=2026-01-31 to=%00 to=\u{661}026-01-31 kind=deposit after=d after=d2026-02-30 \
                   after=d-026-01-31 after=d2026-01-31x date=2026-01-31";
    let (long, key) = ("ä".repeat(501), "x".repeat(41));
    let for_search = format!(
        "sort=&currency=EUR sort=name&currency=EUR sort=--balance&currency=EUR sort=Balance&currency=EUR min_balance=x&currency=EUR \
         min_balance=1.0&currency=EUR min_balance=9007199254740992&currency=EUR max_balance=-9007199254740992&currency=EUR \
         min_balance=2&max_balance=1&currency=EUR q= q=%00 q={long} metadata.=17 metadata.a=1&metadata.a=1 metadata.a=%00 \
         metadata.{key}=1 metadata.a={long} metadata=17 metadata metadata[a]=1 q=a&q=b reference=a"
    );
    let amounts = format!(
        "min_amount=-1 min_amount=x max_amount=9007199254740992 min_amount=2&max_amount=1 reference= reference=%00 \
         reference={long} reference=a&reference=b"
    );
    let for_all =
        "kind=deposit q=a owner= currency= from=2026-02-01T00:00:00Z&to=2026-01-31T00:00:00Z status=open sort=balance";
    for (path, queries) in [
        ("/v1/accounts", &*for_search),
        (&*movements, &*amounts),
        ("/v1/transactions", &*amounts),
        ("/v1/transactions", for_lists),
        ("/v1/transactions", for_all),
        (&*days, for_lists),
        (&days, for_days),
        ("/v1/accounts", for_lists),
        ("/v1/accounts", &for_accounts),
        (&movements, for_lists),
        (&movements, for_movements),
        (&one, "limit=1 as_if=1"),
        (&transfer, "limit=1"),
    ] {
        for query in queries.split(' ') {
            let response = fixture.client.get(&format!("{path}?{query}")).await;
            assert_eq!(response.status, 400, "{path}?{query}: {}", response.body);
            let name = query.split('=').next().unwrap();
            let code = if name == "currency" { "invalid_currency" } else { "invalid_parameter" };
            let refused = response.expect_problem(400, code);
            assert_eq!(refused.text("/errors/0/field"), name, "{path}?{query}");
        }
    }
    for query in ["sort=balance", "min_balance=0", "max_balance=-5", "sort=-last_activity_at&q=a"] {
        let refused =
            fixture.client.get(&format!("/v1/accounts?{query}")).await.expect_problem(400, "invalid_parameter");
        assert_eq!(refused.text("/errors/0/field"), "currency", "{query}");
    }
    let many: Vec<String> = (0..21).map(|n| format!("metadata.{n}=x")).collect();
    let refused = fixture.client.get(&format!("/v1/accounts?{}", many.join("&"))).await;
    assert_eq!(refused.expect_problem(400, "invalid_parameter").text("/errors/0/field"), "metadata");
    fixture.client.get("/v1/accounts?currency=eur").await.expect_problem(400, "invalid_currency");
    fixture.expect_nothing_recorded().await;
}

#[tokio::test]
async fn cursor_is_valid_only_in_its_own_list() {
    let fixture = fixture().await;
    let deposited = fixture.client.deposit(fixture.account, 1).await.expect(201);
    let (accounts, movements) = ("/v1/accounts", &*format!("/v1/accounts/{}/transactions", fixture.account));
    let days = &*format!("/v1/accounts/{}/daily-balances", fixture.account);
    // The list has one day, so the next page is empty.
    let minimum = deposited.position();
    fixture.client.get(&format!("{days}?after=d2026-01-31&min_position={minimum}")).await.expect(200);
    for path in [accounts, movements] {
        fixture.client.get(&format!("{path}?after=d2026-01-31")).await.expect_problem(400, "invalid_parameter");
    }
    let (sorted, all) = ("/v1/accounts?currency=EUR&sort=balance", "/v1/transactions");
    for (path, another) in [
        (accounts, movements),
        (movements, accounts),
        (movements, days),
        (accounts, sorted),
        (sorted, accounts),
        (sorted, "/v1/accounts?currency=EUR&sort=-balance"),
        (sorted, "/v1/accounts?currency=EUR&sort=last_activity_at"),
        (all, movements),
        (movements, all),
        (all, accounts),
    ] {
        let [path, another] =
            [path, another].map(|path| if path.contains('?') { format!("{path}&") } else { format!("{path}?") });
        let page = fixture.client.get(&format!("{path}limit=1&min_position={}", deposited.position())).await;
        let page = page.expect(200);
        let next = page.text("/next");
        fixture.client.get(&format!("{path}after={next}")).await.expect(200);
        fixture.client.get(&format!("{another}after={next}")).await.expect_problem(400, "invalid_parameter");
    }
}
