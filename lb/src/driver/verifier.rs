//! What is worth telling of a verifier's log, which may have millions of bytes.

use std::io;

use aya::programs::ProgramError;
use tracing::debug;

use crate::text;

/// Last lines that are told: the refused instruction, and why.
const REASON: usize = 4;
/// Last lines that are logged at the debug level.
const DETAIL: usize = 400;

/// Why the kernel does not accept a program.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The verifier says so.
    #[error("{error}; the verifier: {reason}")]
    Verifier {
        /// What the system call returned.
        error: io::Error,
        /// The end of its log, on one line of at most [`text::LINE`] bytes.
        reason: String,
    },
    /// Something else.
    #[error(transparent)]
    Other(ProgramError),
}

impl Refusal {
    /// Of this program. More of the verifier's log goes to ours, at the debug level.
    pub(super) fn of(program: &'static str, error: ProgramError) -> Self {
        let ProgramError::LoadError { io_error, verifier_log } = error else { return Self::Other(error) };
        let log = verifier_log.to_string();
        drop(verifier_log);
        let lines: Vec<&str> = log.lines().rev().take(DETAIL).collect();
        for line in lines.iter().rev() {
            debug!(program, line = text::line(*line), "verifier");
        }
        Self::Verifier { error: io_error, reason: reason(&log) }
    }
}

/// The last lines of a log that say something, on one line. Behind the reason the verifier writes how much it has done;
/// and between the lines of code are those of the state they are in.
fn reason(log: &str) -> String {
    let is_statistics = |line: &&str| {
        ["processed ", "verification time ", "stack depth "].iter().any(|start| line.starts_with(start))
    };
    let lines = log.lines().rev().map(str::trim).filter(|line| !line.is_empty());
    let mut last: Vec<String> = lines.skip_while(is_statistics).take(REASON).map(text::name).collect();
    if last.is_empty() {
        return "says nothing".to_owned();
    }
    last.reverse();
    text::line(last.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux 6.12 writes it.
    const END: &str = "\
; let port = unsafe { *pointer }; @ main.rs:10
118: (71) r1 = *(u8 *)(r2 +12)
invalid access to packet, off=12 size=1, R2(id=0,off=12,r=12)
R2 offset is outside of the packet
verification time 812 usec
stack depth 64+0
processed 118 insns (limit 1000000) max_states_per_insn 0 total_states 9 peak_states 9 mark_read 3
";

    #[test]
    fn the_reason_is_at_the_end_of_the_log() {
        let log = "117: (bf) r2 = r6 ; R2_w=pkt(r=12) R6=pkt(r=12)\n".repeat(200_000) + END;
        let reason = reason(&log);
        assert!(reason.ends_with("| R2 offset is outside of the packet"), "{reason}");
        assert!(reason.contains("invalid access to packet, off=12"), "{reason}");
        assert!(!reason.contains("processed") && !reason.contains("117:"), "{reason}");
    }

    #[test]
    fn a_log_costs_one_line() {
        for log in [String::new(), "\n \n".to_owned(), "processed 1 insns (limit 1000000)".to_owned()] {
            assert_eq!(reason(&log), "says nothing", "{log:?}");
        }
        let long = reason(&"x".repeat(10 << 20));
        assert!(long.len() <= text::LINE, "{} bytes", long.len());
        let refusal = Refusal::of(
            "portico_xdp",
            ProgramError::LoadError {
                io_error: io::Error::from_raw_os_error(libc::EACCES),
                verifier_log: aya_obj::VerifierLog::new("0: (95) exit\n".repeat(1 << 20) + END),
            },
        );
        let told = crate::error::chain(&refusal);
        assert!(told.starts_with("Permission denied") && told.len() < 1_024, "{told}");
        assert!(told.contains("R2 offset is outside"), "{told}");
    }
}
