use super::{super::read, *};

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Type, flags and payload of each message.
fn messages(batch: &Batch) -> Vec<(u8, u16, Vec<u8>)> {
    let mut bytes = &batch.bytes[..];
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let length = u32::from_ne_bytes(bytes[..4].try_into().unwrap()) as usize;
        let flags = u16::from_ne_bytes([bytes[6], bytes[7]]);
        // After the header comes `struct nfgenmsg`.
        messages.push((bytes[4], flags, bytes[20..length].to_vec()));
        bytes = &bytes[length.next_multiple_of(4)..];
    }
    messages
}

fn change(delete: &[Key], add: &[(u32, SocketAddr)]) -> Batch {
    let mut transaction = Transaction::new("portico");
    transaction.delete_elements(delete);
    transaction.add_elements(add);
    transaction.finish()
}

const NEW_ELEMENTS: u8 = 12;
const DELETE_ELEMENTS: u8 = 14;

#[test]
fn a_change_deletes_before_it_adds() {
    let delete = [(17, Family::V6), (0x1_0000, Family::V4), (18, Family::V4)];
    let add = [(19, addr("10.2.0.3:1")), (20, addr("[fd02::4]:2"))];
    let batch = change(&delete, &add);
    let kinds: Vec<u8> = messages(&batch).iter().map(|(kind, ..)| *kind).collect();
    assert_eq!(kinds[1..5], [DELETE_ELEMENTS, DELETE_ELEMENTS, NEW_ELEMENTS, NEW_ELEMENTS]);
    assert_eq!(
        batch.subjects[1..5],
        ["backends4 from 1:0", "backends6 from 0:11", "backends4 from 0:13", "backends6 from 0:14"]
            .map(|what| format!("elements of map {what} on"))
    );
}

#[test]
fn what_is_written_is_what_is_read() {
    let elements = [
        (19, addr("10.2.0.3:1")),
        (0xffff_0003, addr("192.0.2.1:9")),
        (0x1_0000, addr("[fd02::4]:65535")),
        (u32::MAX, addr("[::1]:80")),
    ];
    let mut found = Vec::new();
    for (kind, _, payload) in messages(&change(&[], &elements)) {
        if kind == NEW_ELEMENTS {
            let family = if found.is_empty() { Family::V4 } else { Family::V6 };
            read::elements(&payload, family, &mut found).unwrap();
        }
    }
    assert_eq!(found, elements);
}

/// The length of an attribute has 16 bits.
#[test]
fn long_lists_are_divided() {
    let elements: Vec<(u32, SocketAddr)> = (0..200_000_u32)
        .map(|i| (16 + i, SocketAddr::new([0xfd02_u16, 0, 0, 0, 0, 0, 0, 1].into(), 1)))
        .collect();
    let mut found = Vec::new();
    for (kind, flags, payload) in messages(&change(&[], &elements)) {
        if kind == NEW_ELEMENTS {
            assert!(payload.len() <= usize::from(u16::MAX));
            // Existing ones are no error.
            assert_ne!(flags & NLM_F_CREATE, 0);
            assert_eq!(flags & netlink_packet_core::NLM_F_EXCL, 0);
            read::elements(&payload, Family::V6, &mut found).unwrap();
        }
    }
    assert!(found == elements);
}

#[test]
fn every_counter_is_declared_once() {
    let mut transaction = Transaction::new("portico");
    transaction.create(Synproxy::On, None);
    let batch = transaction.finish();
    for counter in counter::ALL {
        let declared = batch.subjects.iter().filter(|subject| **subject == format!("counter {counter}"));
        assert_eq!(declared.count(), 1);
    }
}
