//! The service streams journals: its memory does not grow with the length of a journal.

use std::time::Duration;

use nix::sys::signal::Signal;
use passbook_testkit::{folder::Folder, process::Passbook};
use sqlx::{Connection, PgConnection};

use crate::statement_memory::peak_kb;

const DEPOSITS: i64 = 60_000;
const GROWTH_KB_MAX: u64 = 12 * 1024;
/// The smallest size of a line.
const LINE_BYTES: i64 = 400;

/// Appends deposits to the only account, without the service.
const APPEND: &str = "
    ALTER TABLE event DISABLE TRIGGER event_immutable;
    INSERT INTO event (partition, position, id, stream_id, version, type, schema_version, data, metadata, recorded_at, hash)
    SELECT partition, position + n, gen_random_uuid(), stream_id, version + n, type, schema_version, data, metadata, recorded_at, hash
    FROM event, generate_series(1, 60000) AS n
    WHERE position = 2;
    UPDATE log_head SET position = position + 60000";

#[tokio::test]
async fn a_long_journal_needs_no_more_memory_than_a_short_one() {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).start();
    service.client.open_account().await;
    service.client.deposit_ok("first").await;
    let mut connection = PgConnection::connect(&folder.database_url()).await.unwrap();
    sqlx::raw_sql(APPEND).execute(&mut connection).await.unwrap();
    let path = format!("/v1/books/trial-balance?min_position={}", DEPOSITS + 2);
    while service.client.get(&path).await.status() != 200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(connection);
    // A process that has projected nothing.
    service.stop(Signal::SIGTERM);
    let service = Passbook::in_folder(&folder).start();
    for day in ["2000-01-01", "9999-12-30"] {
        let short = service.client.get(&format!("/v1/books/journal?from={day}&to={day}")).await;
        assert_eq!(short.status(), 200);
    }
    let before = peak_kb(service.process.id());
    let mut response = service.client.get("/v1/books/journal?from=2000-01-01&to=9999-12-31").await;
    let mut length = 0;
    while let Some(chunk) = response.chunk().await.unwrap() {
        length += i64::try_from(chunk.len()).unwrap();
    }
    assert!(length > DEPOSITS * LINE_BYTES, "the response has only {length} bytes");
    let grown = peak_kb(service.process.id()).saturating_sub(before);
    println!("{length} bytes of response, {grown} KB more memory");
    assert!(grown < GROWTH_KB_MAX, "memory grew by {grown} KB for a response of {length} bytes");
}
