//! It serves, says where, and keeps what it was told.

use nix::sys::signal::Signal;

use crate::{client::Deposit, folder::Folder, passbook::Passbook};

fn ids(deposits: Vec<Deposit>) -> Vec<String> {
    deposits.into_iter().map(|deposit| deposit.event_id).collect()
}

#[tokio::test]
async fn an_empty_folder_becomes_a_bank_and_one_line_says_where_it_listens() {
    let folder = Folder::empty();
    let bank = Passbook::on(&folder).argument("serve").start();
    assert!(bank.client.base().starts_with("http://127.0.0.1:"), "{}", bank.client.base());
    bank.client.is_ready().await;
    let said = format!("listening on {}", bank.client.base());
    assert_eq!(bank.stop(Signal::SIGTERM).stdout, [said]);
}

#[tokio::test]
async fn without_a_word_it_serves() {
    let folder = Folder::fresh();
    let bank = Passbook::on(&folder).start();
    bank.client.open().await;
    assert_eq!(bank.stop(Signal::SIGINT).status.code(), Some(0));
}

#[tokio::test]
async fn a_person_is_told_the_addresses_and_the_data_folder_on_standard_error() {
    let folder = Folder::fresh();
    let bank = Passbook::on(&folder).start();
    let (base, ended) = (bank.client.base().to_owned(), bank.stop(Signal::SIGTERM));
    for part in [format!("{base}/v1/accounts"), format!("{base}/swagger-ui/"), folder.data().display().to_string()] {
        assert!(ended.stderr.contains(&part), "{part} is missing: {}", ended.stderr);
    }
}

#[tokio::test]
async fn what_was_recorded_is_there_after_a_restart() {
    let folder = Folder::fresh();
    let bank = Passbook::on(&folder).start();
    bank.client.open().await;
    let deposit = bank.client.deposit_now("before").await;
    assert_eq!(bank.stop(Signal::SIGTERM).status.code(), Some(0));
    folder.is_left_alone();

    let bank = Passbook::on(&folder).start();
    assert_eq!(ids(bank.client.deposits().await), std::slice::from_ref(&deposit));
    assert_eq!(bank.client.deposit_now("before").await, deposit, "the key is remembered");
}

#[tokio::test]
async fn two_banks_on_one_postgres_share_one_log() {
    let folder = Folder::fresh();
    let first = Passbook::on(&folder).start();
    let second = Passbook::using(&folder.database_url()).start();
    first.client.open().await;
    let mut paid = vec![];
    for key in 0..10 {
        let bank = if key % 2 == 0 { &first } else { &second };
        paid.push(bank.client.deposit_now(&key.to_string()).await);
    }
    paid.reverse();
    assert_eq!(ids(second.client.deposits().await), paid);
    let ended = second.stop(Signal::SIGTERM);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    first.client.is_ready().await;
}

#[tokio::test]
async fn with_access_control_off_in_so_many_words_it_listens_on_every_address() {
    let folder = Folder::fresh();
    let bank = Passbook::on(&folder).set("PASSBOOK_LISTEN", "0.0.0.0:0").set("PASSBOOK_AUTH", "off").start();
    assert!(bank.client.base().starts_with("http://0.0.0.0:"), "{}", bank.client.base());
    bank.client.is_ready().await;
}

#[tokio::test]
async fn a_setting_can_be_given_as_a_flag() {
    let folder = Folder::fresh();
    let data = folder.data();
    let bank = Passbook::bare().argument("serve").argument("--listen=127.0.0.1:0");
    let bank = bank.argument(&format!("--data-dir={}", data.display())).start();
    bank.client.is_ready().await;
}
