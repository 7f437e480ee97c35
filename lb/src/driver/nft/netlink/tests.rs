use std::{collections::VecDeque, os::unix::net::UnixDatagram};

use super::{
    super::{message::Transaction, ruleset::Synproxy},
    *,
};

/// Answers as they are written down.
#[derive(Default)]
struct Script {
    answers: VecDeque<io::Result<Vec<u8>>>,
    sent: usize,
}

impl Script {
    fn of(answers: impl IntoIterator<Item = io::Result<Vec<u8>>>) -> Self {
        Self { answers: answers.into_iter().collect(), sent: 0 }
    }
}

impl Transport for Script {
    fn send(&mut self, _: &[u8]) -> io::Result<()> {
        self.sent += 1;
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8], _: Instant) -> io::Result<usize> {
        let answer = self.answers.pop_front().unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
        buffer[..answer.len()].copy_from_slice(&answer);
        Ok(answer.len())
    }
}

fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let length = (HEADER + payload.len()) as u32;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// What the kernel says to the message of this sequence number, with words of its own or without.
fn answer(sequence: u32, errno: i32, words: Option<&str>) -> Vec<u8> {
    let mut payload = (-errno).to_ne_bytes().to_vec();
    payload.extend([0; HEADER]);
    let Some(words) = words else { return message(NLMSG_ERROR, 0, sequence, &payload) };
    payload.extend((words.len() as u16 + 5).to_ne_bytes());
    payload.extend(1_u16.to_ne_bytes());
    payload.extend(words.as_bytes());
    payload.push(0);
    message(NLMSG_ERROR, 0x200, sequence, &payload)
}

fn done() -> Vec<u8> {
    message(NLMSG_DONE, 0, 0, &0_i32.to_ne_bytes())
}

/// An answer to a list, from this generation of the ruleset.
fn item(flags: u16, generation: u16) -> Vec<u8> {
    let [high, low] = generation.to_be_bytes();
    message(u16::from(SUBSYSTEM) << 8, flags, 0, &[1, 0, high, low, 5, 0, 1, 0, b'x', 0, 0, 0])
}

fn enobufs() -> io::Result<Vec<u8>> {
    Err(io::Error::from_raw_os_error(libc::ENOBUFS))
}

fn batch() -> Batch {
    let mut transaction = Transaction::new("portico");
    transaction.create(Synproxy::Absent, None);
    transaction.finish()
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn write(batch: &Batch, answers: impl IntoIterator<Item = io::Result<Vec<u8>>>) -> Result<(), Error> {
    transact(&mut Script::of(answers), "write", batch, later())
}

fn read(answers: impl IntoIterator<Item = io::Result<Vec<u8>>>) -> Result<(Listed, usize), Error> {
    let mut count = 0;
    let listed = list(&mut Script::of(answers), "list", Request::Tables, later(), |_| {
        count += 1;
        Ok(())
    })?;
    Ok((listed, count))
}

#[test]
fn the_last_change_is_acknowledged_and_no_other() {
    let batch = batch();
    let flags: Vec<(u16, bool)> = messages(&batch.bytes)
        .map(|message| (message.kind, message.flags & netlink_packet_core::NLM_F_ACK != 0))
        .collect();
    let last = flags.len() - 2;
    assert_eq!(batch.acknowledged as usize, last);
    assert_eq!(batch.subjects.len(), flags.len());
    // NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END.
    assert_eq!([flags[0], flags[last + 1]], [(16, false), (17, false)]);
    for (index, (kind, acknowledged)) in flags[1..=last].iter().enumerate() {
        assert_eq!((kind >> 8, *acknowledged), (u16::from(SUBSYSTEM), index + 1 == last));
    }
}

#[test]
fn a_transaction_is_committed_if_its_last_change_is_acknowledged_and_nothing_refused() {
    let batch = batch();
    let last = batch.acknowledged;
    assert!(write(&batch, [Ok(answer(last, 0, None))]).is_ok());
    // The acknowledgement comes in spite of what was refused.
    let error = write(&batch, [Ok(answer(3, libc::EEXIST, None)), Ok(answer(last, 0, None))]).unwrap_err();
    assert!(matches!(&error, Error::Refused { subject, .. } if *subject == batch.subjects[3]), "{error}");
    // Refused as a whole it was refused, whatever is said of the last change.
    let error = write(&batch, [Ok(answer(0, libc::EINVAL, None)), Ok(answer(last, 0, None))]).unwrap_err();
    assert_eq!(error.to_string(), "cannot write: the kernel refuses the transaction");
}

#[test]
fn a_refusal_names_the_rule_and_has_the_kernels_words() {
    let batch = batch();
    let rule = batch.subjects.iter().position(|subject| subject.contains("masquerade fully")).unwrap() as u32;
    let answers =
        [answer(rule, libc::ENOENT, Some("no such thing")), answer(rule + 1, libc::EINVAL, None)].concat();
    let error = write(&batch, [Ok(answers), Ok(answer(batch.acknowledged, 0, None))]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot write: the kernel refuses rule \"meta mark & 0x4000 == 0x4000 meta mark set meta mark & 0xffffbfff \
         counter name masqueraded masquerade fully-random\" of chain masquerading: no such thing"
    );
    assert_eq!(
        std::error::Error::source(&error).unwrap().to_string(),
        "No such file or directory (os error 2)"
    );
}

#[test]
fn what_is_not_permitted_and_what_the_kernel_lacks_are_errors_of_their_own() {
    let batch = batch();
    for errno in [libc::EPERM, libc::EACCES] {
        let error = write(&batch, [Ok(answer(0, errno, None))]).unwrap_err();
        assert!(matches!(error, Error::Permission { .. }), "{error}");
    }
    for (sequence, errno) in [(0, libc::EOPNOTSUPP), (1, libc::EAFNOSUPPORT)] {
        let acknowledged = answer(batch.acknowledged, 0, None);
        let error = write(&batch, [Ok(answer(sequence, errno, None)), Ok(acknowledged)]).unwrap_err();
        assert!(matches!(error, Error::Missing { .. }), "{error}");
    }
    let error = read([Ok(answer(0, libc::EINVAL, None))]).unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error}");
    let error = failed("open", io::Error::from_raw_os_error(libc::EPROTONOSUPPORT));
    assert!(matches!(error, Error::Missing { .. }), "{error}");
}

#[test]
fn lost_answers_to_a_transaction_do_not_pass_for_a_commit() {
    let batch = batch();
    let last = batch.acknowledged;
    for answers in [vec![enobufs()], vec![enobufs(), Ok(answer(last, 0, None))]] {
        let error = write(&batch, answers).unwrap_err();
        assert!(matches!(error, Error::Lost { .. }), "{error}");
    }
    let error = write(&batch, [enobufs(), Ok(answer(3, libc::EEXIST, None))]).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
}

#[test]
fn a_list_ends_with_its_last_message() {
    assert_eq!(read([Ok(done())]).unwrap(), (Listed::Whole(None), 0));
    let whole = [Ok([item(0, 7), item(0, 7)].concat()), Ok([item(0, 7), done()].concat())];
    assert_eq!(read(whole).unwrap(), (Listed::Whole(Some(7)), 3));
    let error = read([Ok(item(0, 7)), Ok(answer(0, libc::ENOENT, None))]).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    let short = message(u16::from(SUBSYSTEM) << 8, 0, 0, &[1, 0]);
    assert!(matches!(read([Ok(short)]), Err(Error::Answer { .. })));
}

#[test]
fn an_interrupted_list_is_known_as_one() {
    for (what, answers) in [
        ("flagged", vec![Ok(item(NLM_F_DUMP_INTR, 7)), Ok(done())]),
        ("flagged at its end", vec![Ok(item(0, 7)), Ok(message(NLMSG_DONE, NLM_F_DUMP_INTR, 0, &[0; 4]))]),
        ("of two generations", vec![Ok(item(0, 7)), Ok(item(0, 8)), Ok(done())]),
        ("refused", vec![Ok(item(0, 7)), Ok(answer(0, libc::EINTR, None))]),
        ("overrun", vec![Ok(message(NLMSG_OVERRUN, 0, 0, &[])), Ok(done())]),
        ("lost in part", vec![enobufs(), Ok(item(0, 7)), Ok(done())]),
    ] {
        assert_eq!(read(answers).unwrap().0, Listed::Interrupted, "{what}");
    }
}

/// A socket at whose other end nobody answers.
#[test]
fn an_answer_is_waited_for_until_the_deadline() {
    let batch = batch();
    let wait = Duration::from_millis(50);
    for read in [false, true] {
        let (socket, _silent) = UnixDatagram::pair().unwrap();
        let mut wire = Wire(socket);
        let start = Instant::now();
        let error = match read {
            true => list(&mut wire, "list", Request::Tables, start + wait, |_| Ok(())).unwrap_err(),
            false => {
                let small = Batch { bytes: batch.bytes[..64].to_vec(), ..self::batch() };
                transact(&mut wire, "write", &small, start + wait).unwrap_err()
            }
        };
        assert!(matches!(error, Error::Deadline { .. }), "{error}");
        assert!(start.elapsed() >= wait);
    }
}

#[test]
fn own_changes_are_recognised_once() {
    let own = Own::default();
    own.add(7);
    own.add(7);
    assert_eq!([own.take(7), own.take(8), own.take(7), own.take(7)], [true, false, true, false]);
}
