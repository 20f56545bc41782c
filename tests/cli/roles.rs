//! Who may do what in a database that is not ours: the owner migrates, others serve.

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::{folder::Folder, passbook::Passbook};

/// A Postgres that somebody else runs, with roles and an empty database.
struct Elsewhere {
    _bank: crate::passbook::Running,
    folder: Folder,
}

impl Elsewhere {
    async fn with(setup: &str) -> Self {
        let folder = Folder::fresh();
        let bank = Passbook::on(&folder).start();
        let elsewhere = Self { _bank: bank, folder };
        for statement in setup.split(';').filter(|statement| !statement.trim().is_empty()) {
            elsewhere.execute("postgres", statement).await;
        }
        elsewhere
    }

    fn url(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@localhost/{database}?host={}", self.folder.data().join("run").display())
    }

    async fn execute(&self, database: &str, sql: &str) {
        let mut superuser = PgConnection::connect(&self.url("passbook", database)).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut superuser).await.unwrap();
    }
}

#[tokio::test]
async fn an_owner_who_is_no_superuser_migrates_and_serves_and_another_user_serves_after_it() {
    let elsewhere = Elsewhere::with(
        "CREATE ROLE owner LOGIN CREATEROLE; CREATE ROLE bank LOGIN; CREATE ROLE stranger LOGIN;
         CREATE DATABASE own OWNER owner; GRANT passbook_service TO owner",
    )
    .await;
    let early = Passbook::using(&elsewhere.url("stranger", "own")).end();
    assert!(early.refusal().contains("run `passbook migrate`"), "{early:?}");

    let bank = Passbook::using(&elsewhere.url("owner", "own")).start();
    bank.client.open().await;
    let stranger = Passbook::using(&elsewhere.url("stranger", "own")).end();
    assert!(stranger.refusal().contains("GRANT passbook_service TO stranger"), "{stranger:?}");
    let refused = Passbook::using(&elsewhere.url("stranger", "own")).argument("migrate").end();
    assert!(refused.refusal().contains("does not own"), "{refused:?}");

    elsewhere.execute("own", "GRANT passbook_service TO bank").await;
    let another = Passbook::using(&elsewhere.url("bank", "own")).start();
    another.client.deposit_now("a-key").await;
    another.client.is_ready().await;
}

#[tokio::test]
async fn whoever_migrated_and_was_killed_before_the_service_had_its_rights_is_made_good_for_by_the_next_start() {
    let elsewhere = Elsewhere::with("CREATE DATABASE own").await;
    let own = elsewhere.url("passbook", "own");
    assert!(Passbook::using(&own).argument("migrate").end().status.success());
    elsewhere.execute("own", "REVOKE ALL ON log_layout, relay FROM passbook_service").await;
    let bank = Passbook::using(&own).start();
    bank.client.open().await;
}

#[tokio::test]
async fn an_older_schema_is_not_served_by_somebody_who_may_not_migrate_it() {
    let elsewhere = Elsewhere::with("CREATE ROLE bank LOGIN IN ROLE passbook_service").await;
    elsewhere.execute("passbook", "DELETE FROM _sqlx_migrations WHERE version > 1").await;
    let ended = Passbook::using(&elsewhere.url("bank", "passbook")).end();
    assert!(
        ended.refusal().contains("at version 1 and this release needs") && ended.refusal().contains("passbook migrate"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn an_owner_who_may_not_create_the_role_is_told_what_a_superuser_says_for_them() {
    let elsewhere = Elsewhere::with("CREATE ROLE owner LOGIN; CREATE DATABASE own OWNER owner").await;
    // The cluster knows the role already, and this owner may not take it.
    let ended = Passbook::using(&elsewhere.url("owner", "own")).argument("migrate").end();
    assert!(ended.refusal().contains("GRANT passbook_service TO owner"), "{ended:?}");
    elsewhere.execute("own", "GRANT passbook_service TO owner").await;
    let bank = Passbook::using(&elsewhere.url("owner", "own")).start();
    bank.client.open().await;
}
