//! One outcome for each key, also within one batch of the executor.

use super::{
    account, batch, code, deposit,
    ledger::{Ledger, atomic, key, keyed, single},
    open, receipt, refused, three_accounts, withdraw,
};
use crate::{command::Refusal, pending::CommandResult};

fn is_replay(result: &CommandResult) -> bool {
    result.as_ref().expect("executed").replayed
}

#[test]
fn same_key_twice_in_one_batch_is_executed_once() {
    let mut ledger = three_accounts(1);
    let decided = ledger.execute(vec![
        keyed(deposit(1, 5), key("one", 1)),
        keyed(deposit(1, 5), key("one", 1)),
        keyed(deposit(1, 6), key("one", 2)),
        single(deposit(1, 1)),
    ]);
    assert_eq!([0, 1].map(|at| is_replay(&decided.results[at])), [false, true]);
    assert_eq!(receipt(&decided.results[0]), receipt(&decided.results[1]));
    assert_eq!(refused(&decided.results[2]).reason, Refusal::KeyReused);
    assert_eq!((ledger.balance(account(1)), ledger.keys()), (106, 1));
}

#[test]
fn same_key_of_two_atomic_batches_is_executed_once() {
    for partitions in [1, 4] {
        let mut ledger = three_accounts(partitions);
        let work = || atomic(vec![deposit(1, 5), deposit(2, 6)], Some(key("one", 1)));
        let other = || atomic(vec![deposit(1, 5)], Some(key("one", 2)));
        let decided = ledger.execute(vec![work(), work(), other()]);
        assert_eq!([0, 1].map(|at| is_replay(&decided.results[at])), [false, true]);
        assert_eq!(batch(&decided.results[0]), batch(&decided.results[1]));
        let reused = refused(&decided.results[2]);
        assert_eq!((reused.reason, reused.index, reused.account_id), (Refusal::KeyReused, None, None));
        let again = ledger.execute(vec![work(), other()]);
        assert!(is_replay(&again.results[0]));
        assert_eq!(batch(&decided.results[0]), batch(&again.results[0]));
        assert_eq!(refused(&again.results[1]).reason, Refusal::KeyReused);
        assert_eq!([1, 2].map(|number| ledger.balance(account(number))), [105, 106]);
    }
}

#[test]
fn key_of_a_single_command_and_of_a_batch_is_one_key() {
    let mut ledger = three_accounts(1);
    let decided = ledger.execute(vec![
        keyed(deposit(1, 5), key("one", 1)),
        atomic(vec![deposit(1, 5)], Some(key("one", 2))),
        atomic(vec![deposit(1, 7)], Some(key("two", 3))),
        keyed(deposit(1, 7), key("two", 4)),
    ]);
    let reused = [1, 3].map(|at| refused(&decided.results[at]).reason);
    assert_eq!((reused, ledger.balance(account(1))), ([Refusal::KeyReused; 2], 112));
}

#[test]
fn refused_batch_is_recorded_with_its_index_and_replayed() {
    for partitions in [1, 4] {
        let mut ledger = three_accounts(partitions);
        let work = || atomic(vec![deposit(1, 5), withdraw(2, 101), deposit(3, 1)], Some(key("one", 1)));
        let decided = ledger.execute(vec![work(), work(), single(deposit(2, 1)), work()]);
        let first = refused(&decided.results[0]);
        assert_eq!((first.index, first.replayed, first.account_id), (Some(1), false, Some(account(2))));
        let later = ledger.execute(vec![work()]);
        for replay in [refused(&decided.results[1]), refused(&decided.results[3]), refused(&later.results[0])] {
            assert_eq!((replay.index, replay.replayed, replay.account_id), (Some(1), true, Some(account(2))));
            assert_eq!(replay.reason, first.reason);
        }
        assert_eq!([1, 2, 3].map(|number| ledger.balance(account(number))), [100, 101, 100]);
        assert_eq!(ledger.keys(), 1);
    }
}

#[test]
fn key_of_a_batch_is_stored_with_the_account_of_its_first_command() {
    let mut ledger = Ledger::new(64);
    let decided = ledger.execute(vec![atomic(vec![open(1, 0), open(2, 0)], Some(key("one", 1)))]);
    let [first, second] = [1, 2].map(|number| ledger.partitions.partition_of(account(number)));
    assert_ne!(first, second);
    assert_eq!([first, second].map(|partition| decided.appends[&partition].keys.len()), [1, 0]);
    let refusal = ledger.execute(vec![atomic(vec![deposit(2, 1), withdraw(1, 1)], Some(key("two", 1)))]);
    assert_eq!(code(refused(&refusal.results[0])), "insufficient_funds");
    assert_eq!([first, second].map(|partition| refusal.appends[&partition].keys.len()), [0, 1]);
}
