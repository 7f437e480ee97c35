use proptest::prelude::*;

use super::*;

fn pending(table: &Table<u8, char>) -> (Vec<(u8, char)>, Vec<u8>) {
    (table.puts().map(|(k, v)| (*k, *v)).collect(), table.deletes().map(|(k, _)| *k).collect())
}

#[test]
fn only_the_difference_is_pending_and_only_until_it_is_written() {
    let mut table = Table::default();
    assert_eq!(table.set(1, 'a'), None);
    table.set(2, 'b');
    assert_eq!(pending(&table), (vec![(1, 'a'), (2, 'b')], vec![]));
    assert_eq!(table.actual(&1), None);
    table.wrote(1, 'a');
    table.wrote(2, 'b');
    assert_eq!(table.pending_len(), 0);
    assert_eq!(table.set(1, 'c'), Some('a'));
    assert_eq!(table.unset(&2), Some('b'));
    assert_eq!(pending(&table), (vec![(1, 'c')], vec![2]));
    assert_eq!((table.actual(&1), table.desired(&1)), (Some(&'a'), Some(&'c')));
    assert_eq!(table.set(1, 'a'), Some('c'), "back to what is there");
    assert_eq!(table.erased(&2), vec!['b']);
    assert!(table.forgotten(&2));
    assert_eq!((table.pending_len(), table.desired_len()), (0, 1));
}

#[test]
fn what_was_never_written_need_not_be_deleted() {
    let mut table = Table::default();
    table.set(1, 'a');
    table.unset(&1);
    assert!(table.forgotten(&1));
}

#[test]
fn a_failed_write_leaves_both_values_possible_and_waits_for_a_retry() {
    let mut table = Table::default();
    table.set(1, 'a');
    table.wrote(1, 'a');
    table.set(1, 'b');
    assert!(table.may_have_written(1, 'b'));
    assert!(!table.may_have_written(1, 'b'), "known already");
    assert_eq!(pending(&table), (vec![], vec![]));
    assert!(table.present(&1) && table.actual(&1).is_none());
    assert!(table.retry() && !table.retry());
    assert_eq!(pending(&table), (vec![(1, 'b')], vec![]));
    table.set(1, 'a');
    assert_eq!(pending(&table), (vec![(1, 'a')], vec![]), "it may be 'b' by now");
    assert_eq!(table.wrote(1, 'a'), vec!['a', 'b']);
    assert_eq!(table.pending_len(), 0);
}

#[test]
fn a_failed_deletion_is_repeated_and_an_entry_wanted_again_is_rewritten() {
    let mut table = Table::default();
    table.set(1, 'a');
    table.wrote(1, 'a');
    table.unset(&1);
    table.may_have_erased(&1);
    assert!(!table.present(&1) && table.may_exist(&1));
    table.retry();
    assert_eq!(pending(&table), (vec![], vec![1]));
    table.set(1, 'a');
    assert_eq!(pending(&table), (vec![(1, 'a')], vec![]));
}

#[test]
fn what_is_found_without_being_wanted_is_deleted() {
    let mut table = Table::default();
    table.wrote(1, 'a');
    table.wrote(2, 'b');
    table.set(2, 'b');
    assert_eq!(pending(&table), (vec![], vec![1]));
    assert_eq!(table.existing().count(), 2);
}

#[derive(Clone, Debug)]
enum Action {
    Set(u8, char),
    Unset(u8),
    /// Performs the pending writes; the flag says for each in turn whether it fails, and how.
    Flush(Vec<Option<bool>>),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        (0u8..4, prop::char::range('a', 'c')).prop_map(|(k, v)| Action::Set(k, v)),
        (0u8..4).prop_map(Action::Unset),
        prop::collection::vec(prop::option::of(any::<bool>()), 4).prop_map(Action::Flush),
    ]
}

proptest! {
    #[test]
    fn the_kernel_converges_on_what_is_wanted(actions in prop::collection::vec(action(), 0..40)) {
        let mut table: Table<u8, char> = Table::default();
        let (mut wanted, mut kernel) = (BTreeMap::new(), BTreeMap::new());
        for action in actions.into_iter().chain([Action::Flush(vec![None; 4])]) {
            match action {
                Action::Set(k, v) => prop_assert_eq!(table.set(k, v), wanted.insert(k, v)),
                Action::Unset(k) => prop_assert_eq!(table.unset(&k), wanted.remove(&k)),
                Action::Flush(failures) => {
                    table.retry();
                    let puts: Vec<(u8, Option<char>)> = table.puts().map(|(k, v)| (*k, Some(*v))).collect();
                    let deletes = table.deletes().map(|(k, _)| (*k, None));
                    let writes: Vec<_> = puts.into_iter().chain(deletes).collect();
                    for ((k, v), failure) in writes.into_iter().zip(failures.into_iter().cycle()) {
                        if failure != Some(false) {
                            match v {
                                Some(v) => kernel.insert(k, v),
                                None => kernel.remove(&k),
                            };
                        }
                        match (failure, v) {
                            (None, Some(v)) => drop(table.wrote(k, v)),
                            (None, None) => drop(table.erased(&k)),
                            (Some(_), Some(v)) => drop(table.may_have_written(k, v)),
                            (Some(_), None) => table.may_have_erased(&k),
                        }
                    }
                }
            }
            for k in 0..4 {
                if let Some(actual) = table.actual(&k) {
                    prop_assert_eq!(Some(actual), kernel.get(&k));
                }
                prop_assert!(table.may_exist(&k) || !kernel.contains_key(&k));
                prop_assert!(!table.present(&k) || kernel.contains_key(&k));
            }
            prop_assert_eq!(table.desired_len(), wanted.len());
            prop_assert!(table.iter_desired().all(|(k, v)| wanted.get(k) == Some(v)));
        }
        prop_assert_eq!(kernel, wanted);
        prop_assert_eq!(table.pending_len(), 0);
    }
}
