//! `passbook doctor`: examines the database and its server without changing them.

mod report;
mod settings;

use std::path::Path;

use sqlx::{PgConnection, query_scalar};

use self::settings::ServerSettings;
use super::{Error, schema};
use passbook_embedded_postgres::{Machine, free_disk};

pub use report::{Finding, Report, Verdict};

const GIB: u64 = 1 << 30;
/// The free space that a disk should have beside a write-ahead log of its maximum size, in bytes.
const FREE_DISK_MIN: u64 = GIB;

/// Examines version, schema, rights, disk and settings of the server.
pub(super) async fn examine(connection: &mut PgConnection) -> Result<Report, Error> {
    let settings = ServerSettings::read(connection).await.map_err(Error::Unusable)?;
    let pid = local_server(connection).await.map_err(Error::Unusable)?;
    let version: String =
        query_scalar("SHOW server_version").fetch_one(&mut *connection).await.map_err(Error::Unusable)?;
    let data = settings.data_directory().map(Path::new).filter(|_| pid.is_some());
    let machine = match (pid, data) {
        (Some(pid), Some(data)) => Machine::of(pid, data),
        (Some(pid), None) => Machine::without_disk(pid),
        (None, Some(_) | None) => Machine::default(),
    };
    let mut report = Report::default();
    report.push(Finding {
        name: "Postgres",
        value: version,
        recommended: "15 or newer".to_owned(),
        verdict: Verdict::Good,
        why: "Passbook does not connect to older servers.".to_owned(),
    });
    report.extend(schema_findings(schema::state(connection).await?));
    report.push(disk_finding(data.and_then(free_disk), settings.wal_bytes_max()));
    report.extend(settings.compare(&machine));
    Ok(report)
}

/// The process id of this connection's backend if the server runs on this machine.
async fn local_server(connection: &mut PgConnection) -> sqlx::Result<Option<u32>> {
    // Null on a Unix socket.
    let local = "SELECT CASE WHEN inet_server_addr() IS NOT DISTINCT FROM inet_client_addr() THEN pg_backend_pid() END";
    let pid: Option<i32> = query_scalar(local).fetch_one(connection).await?;
    Ok(pid.and_then(|pid| pid.try_into().ok()))
}

fn schema_findings(state: schema::State) -> [Finding; 3] {
    let schema::State { version, needed, user, is_owner, is_complete, problem } = state;
    let has_role = !problem.as_ref().is_some_and(schema::Error::is_about_role);
    let role = match (is_owner, has_role) {
        (true, _) => format!("{user} owns the tables"),
        (false, false) => format!("{user} lacks passbook_service"),
        (false, true) => format!("{user} has passbook_service"),
    };
    let why = |found: bool, good: &str| match &problem {
        Some(error) if !found => error.to_string(),
        Some(_) | None => good.to_owned(),
    };
    let is_new_enough = version.is_some_and(|version| version >= needed);
    let verdict = |good: bool| if good { Verdict::Good } else { Verdict::Remark };
    [
        Finding {
            name: "schema version",
            value: version.map_or_else(|| "unknown".to_owned(), |version| version.to_string()),
            recommended: format!("{needed} or newer"),
            verdict: if version.is_none() { Verdict::Unknown } else { verdict(is_new_enough) },
            why: why(is_new_enough, "The owner of the tables migrates them with `serve` or `migrate`."),
        },
        Finding {
            name: "role",
            value: role,
            recommended: "owner or passbook_service".to_owned(),
            verdict: verdict(has_role),
            why: why(has_role, "The service uses the rights of passbook_service only."),
        },
        Finding {
            name: "rights and indexes",
            value: if is_complete { "complete" } else { "incomplete" }.to_owned(),
            recommended: "complete".to_owned(),
            verdict: verdict(is_complete),
            why: "`passbook migrate`, run by the owner, completes them.".to_owned(),
        },
    ]
}

fn disk_finding(free: Option<u64>, wal_bytes_max: Option<u64>) -> Finding {
    let needed = wal_bytes_max.unwrap_or_default() + FREE_DISK_MIN;
    let (value, verdict, why) = match free {
        None => ("unknown".to_owned(), Verdict::Unknown, "Only visible on the server's machine, as a superuser."),
        Some(free) => {
            let verdict = if free < needed { Verdict::Remark } else { Verdict::Good };
            (gigabytes(free), verdict, "A full disk stops all commands. The WAL alone can grow to max_wal_size.")
        }
    };
    let recommended = format!("at least {}", gigabytes(needed));
    Finding { name: "free disk", value, recommended, verdict, why: why.to_owned() }
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / GIB as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_must_hold_the_largest_log_and_some_more() {
        let verdict = |free| disk_finding(free, Some(4 * GIB)).verdict;
        assert_eq!(verdict(Some(5 * GIB)), Verdict::Good);
        assert_eq!(verdict(Some(5 * GIB - 1)), Verdict::Remark);
        assert_eq!(verdict(None), Verdict::Unknown);
    }

    #[test]
    fn an_outdated_schema_is_a_remark_with_the_remedy() {
        let state = schema::State {
            version: Some(1),
            needed: 2,
            user: "bank".to_owned(),
            is_owner: false,
            is_complete: true,
            problem: Some(schema::Error::Outdated { found: 1, needed: 2 }),
        };
        let [version, role, rights] = schema_findings(state);
        assert_eq!((version.verdict, role.verdict, rights.verdict), (Verdict::Remark, Verdict::Good, Verdict::Good));
        assert!(version.why.contains("passbook migrate"), "{version:?}");
        assert_eq!(role.value, "bank has passbook_service");
    }
}
