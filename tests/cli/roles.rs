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
        let folder = Folder::migrated();
        let bank = Passbook::in_folder(&folder).start();
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
    let early = Passbook::with_database(&elsewhere.url("stranger", "own")).wait_for_exit();
    assert!(early.error_message().contains("run `passbook migrate`"), "{early:?}");

    let bank = Passbook::with_database(&elsewhere.url("owner", "own")).start();
    bank.client.open_account().await;
    let stranger = Passbook::with_database(&elsewhere.url("stranger", "own")).wait_for_exit();
    assert!(stranger.error_message().contains("GRANT passbook_service TO stranger"), "{stranger:?}");
    let refused = Passbook::with_database(&elsewhere.url("stranger", "own")).argument("migrate").wait_for_exit();
    assert!(refused.error_message().contains("does not own"), "{refused:?}");

    elsewhere.execute("own", "GRANT passbook_service TO bank").await;
    let another = Passbook::with_database(&elsewhere.url("bank", "own")).start();
    another.client.deposit_ok("a-key").await;
    another.client.wait_until_ready().await;
}

#[tokio::test]
async fn whoever_migrated_and_was_killed_before_the_service_had_its_rights_is_made_good_for_by_the_next_start() {
    let elsewhere = Elsewhere::with("CREATE DATABASE own").await;
    let own = elsewhere.url("passbook", "own");
    assert!(Passbook::with_database(&own).argument("migrate").wait_for_exit().status.success());
    elsewhere.execute("own", "REVOKE ALL ON log_layout, relay FROM passbook_service").await;
    let bank = Passbook::with_database(&own).start();
    bank.client.open_account().await;
}

#[tokio::test]
async fn an_older_schema_is_not_served_by_somebody_who_may_not_migrate_it() {
    let elsewhere = Elsewhere::with("CREATE ROLE bank LOGIN IN ROLE passbook_service").await;
    elsewhere.execute("passbook", "DELETE FROM _sqlx_migrations WHERE version > 1").await;
    let ended = Passbook::with_database(&elsewhere.url("bank", "passbook")).wait_for_exit();
    assert!(
        ended.error_message().contains("at version 1 and this release needs") && ended.error_message().contains("passbook migrate"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn an_owner_who_may_not_create_the_role_is_told_what_a_superuser_says_for_them() {
    let elsewhere = Elsewhere::with("CREATE ROLE owner LOGIN; CREATE DATABASE own OWNER owner").await;
    // The cluster knows the role already, and this owner may not take it.
    let ended = Passbook::with_database(&elsewhere.url("owner", "own")).argument("migrate").wait_for_exit();
    assert!(ended.error_message().contains("GRANT passbook_service TO owner"), "{ended:?}");
    elsewhere.execute("own", "GRANT passbook_service TO owner").await;
    let bank = Passbook::with_database(&elsewhere.url("owner", "own")).start();
    bank.client.open_account().await;
}
