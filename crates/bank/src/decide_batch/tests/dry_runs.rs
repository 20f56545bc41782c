//! Dry runs of several commands: each one sees the earlier ones, and nothing stays.

use super::{
    account, account_receipt, batch, code, deposit,
    ledger::{atomic, dry, dry_run, key, single, written},
    open, receipt, refused, reversal, three_accounts, transfer, withdraw,
};
use crate::{
    pending::{AtomicBatch, Work},
    receipt::Receipt,
};

#[test]
fn each_command_of_a_dry_run_sees_the_earlier_ones() {
    let ledger = three_accounts(4);
    let commands =
        vec![open(4, 0), transfer(1, 4, 100), withdraw(1, 1), withdraw(4, 100), deposit(9, 1), deposit(4, 3)];
    let decided = ledger.decide(vec![dry_run(commands)]);
    let [opened, moved, emptied, withdrawn, unknown, last] = &decided.results[..] else { panic!("six results") };
    assert_eq!(receipt(opened).version, 1);
    assert!(
        matches!(&moved.as_ref().expect("a transfer").receipt, Receipt::Transfer(transfer) if transfer.from.balance == 0)
    );
    assert_eq!(code(refused(emptied)), "insufficient_funds");
    assert_eq!((receipt(withdrawn).version, receipt(withdrawn).balance), (3, 0));
    assert_eq!((code(refused(unknown)).as_str(), refused(unknown).index), ("account_not_found", None));
    assert_eq!((receipt(last).version, receipt(last).balance), (4, 3));
    let facts = &receipt(last).events;
    assert!(facts.iter().all(|fact| fact.id.is_none() && fact.recorded_at.is_none()), "{facts:?}");
}

#[test]
fn dry_runs_leave_nothing_for_later_commands() {
    let ledger = three_accounts(4);
    let around = || (single(deposit(1, 1)), single(withdraw(1, 101)));
    let (before, after) = around();
    let without = ledger.decide(vec![before, after]);
    let reversed = ledger.reversal(reversal(1, 3, None));
    let dry_commands = || vec![withdraw(1, 101), deposit(1, 1), reversed.clone(), transfer(2, 3, 100)];
    let dry_atomic = |key| {
        let commands = dry_commands().into_iter().map(dry).collect();
        Work::Atomic(AtomicBatch { batch_id: uuid::Uuid::nil(), commands, key }, tokio::sync::oneshot::channel().0)
    };
    for work in [dry_run(dry_commands()), dry_atomic(None), dry_atomic(Some(key("k", 1)))] {
        let (before, after) = around();
        let with = ledger.decide(vec![before, work, after]);
        assert_eq!(written(&with), written(&without));
        assert!(with.results.last().expect("a result").is_ok());
    }
}

#[test]
fn dry_run_of_an_atomic_batch_has_the_receipts_and_records_no_key() {
    let mut ledger = three_accounts(4);
    let (events, keys) = (ledger.events(), ledger.keys());
    let commands = [deposit(1, 5), transfer(1, 2, 105)].map(dry).to_vec();
    let batch_of = AtomicBatch { batch_id: uuid::Uuid::nil(), commands, key: Some(key("k", 1)) };
    let decided = ledger.execute(vec![Work::Atomic(batch_of, tokio::sync::oneshot::channel().0)]);
    let results = &batch(&decided.results[0]).results;
    assert_eq!(account_receipt(&results[0]).balance, 105);
    assert_eq!((ledger.events(), ledger.keys(), ledger.balance(account(1))), (events, keys, 100));
    let recorded = ledger.execute(vec![atomic(vec![deposit(1, 5)], Some(key("k", 1)))]);
    assert!(!recorded.results[0].as_ref().expect("a batch").replayed, "the dry run recorded no key");
}

#[test]
fn refused_atomic_dry_run_has_the_index() {
    let ledger = three_accounts(1);
    let commands = [deposit(1, 5), withdraw(1, 106), deposit(1, 1)].map(dry).to_vec();
    let batch = AtomicBatch { batch_id: uuid::Uuid::nil(), commands, key: None };
    let decided = ledger.decide(vec![Work::Atomic(batch, tokio::sync::oneshot::channel().0), single(withdraw(1, 100))]);
    assert_eq!(refused(&decided.results[0]).index, Some(1));
    assert_eq!(receipt(&decided.results[1]).balance, 0);
}
