//! Making eBPF objects call functions of the kernel.
//!
//! rustc writes no type information for functions it does not see, and aya 0.14 knows no calls into the kernel. The
//! linker leaves such calls as relocations against undefined symbols; here they are resolved before aya reads the
//! object. The id in the call is the function's in the kernel's BTF (`BPF_PSEUDO_KFUNC_CALL`, Linux 5.13).

use aya_obj::generated::{BPF_ALU64, BPF_K, BPF_MOV, BPF_PSEUDO_KFUNC_CALL};
use object::{
    Endianness, File, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget,
    elf::{FileHeader64, SHT_REL},
    read::elf::{FileHeader as _, SectionHeader as _},
};

/// Why an object could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the object")]
    Read(#[from] object::Error),
    #[error("the object has an unexpected form at {0}")]
    Form(&'static str),
}

/// Functions and their ids; none for those that this kernel does not have.
pub(in crate::driver) type Functions<'a> = [(&'a str, Option<u32>)];

/// Size of an instruction and of a relocation without addend (`Elf64_Rel`).
const INSTRUCTION: usize = 8;
const RELOCATION: usize = 16;

/// Resolves the calls to `functions`. One the kernel does not have becomes "returns zero", so that the other programs of
/// the object still load.
///
/// # Errors
///
/// It is no ELF object for eBPF.
pub(in crate::driver) fn resolve(bytes: &[u8], functions: &Functions<'_>) -> Result<Vec<u8>, Error> {
    let mut changed = bytes.to_vec();
    let file = File::parse(bytes)?;
    for section in file.sections() {
        let start = section.file_range().map(|(start, _)| start as usize);
        let mut gone = Vec::new();
        for (offset, relocation) in section.relocations() {
            let RelocationTarget::Symbol(index) = relocation.target() else { continue };
            let symbol = file.symbol_by_index(index)?;
            let name = symbol.name()?;
            let function = functions.iter().find(|(function, _)| symbol.is_undefined() && *function == name);
            if let Some((_, id)) = function {
                let at = start.ok_or(Error::Form("a section without contents"))? + offset as usize;
                let call = changed.get_mut(at..at + INSTRUCTION).ok_or(Error::Form("a call"))?;
                call.copy_from_slice(&instruction(*id));
                gone.push((offset, index.0 as u64));
            }
        }
        if !gone.is_empty() {
            drop_relocations(bytes, &mut changed, section.index().0, &gone)?;
        }
    }
    Ok(changed)
}

/// A call of the function with this id; without one, `r0 = 0`.
fn instruction(id: Option<u32>) -> [u8; INSTRUCTION] {
    const CALL: u8 = 0x85;
    let (code, registers, immediate) = match id {
        Some(id) => (CALL, (BPF_PSEUDO_KFUNC_CALL as u8) << 4, id),
        None => ((BPF_ALU64 | BPF_MOV | BPF_K) as u8, 0, 0),
    };
    let [a, b, c, d] = immediate.to_le_bytes();
    [code, registers, 0, 0, a, b, c, d]
}

/// Takes relocations, given by offset and symbol, out of the list for a section.
fn drop_relocations(
    bytes: &[u8],
    changed: &mut [u8],
    target: usize,
    gone: &[(u64, u64)],
) -> Result<(), Error> {
    let header = FileHeader64::<Endianness>::parse(bytes)?;
    let endian = header.endian()?;
    let headers = header.section_headers(endian, bytes)?;
    let list = headers
        .iter()
        .position(|list| list.sh_type(endian) == SHT_REL && list.sh_info(endian) as usize == target)
        .ok_or(Error::Form("the relocations"))?;
    let (start, size) = headers[list].file_range(endian).ok_or(Error::Form("the relocations"))?;
    let (start, size) = (start as usize, size as usize);
    let all = bytes.get(start..start + size).ok_or(Error::Form("the relocations"))?;
    let kept: Vec<u8> = all
        .chunks_exact(RELOCATION)
        .filter(|entry| !gone.contains(&parse_relocation(entry)))
        .flatten()
        .copied()
        .collect();
    changed[start..start + kept.len()].copy_from_slice(&kept);
    // `sh_size` is 32 bytes into an `Elf64_Shdr` of 64.
    let entry = header.e_shoff(endian) as usize + list * usize::from(header.e_shentsize(endian)) + 32;
    let size = changed.get_mut(entry..entry + 8).ok_or(Error::Form("the section headers"))?;
    size.copy_from_slice(&(kept.len() as u64).to_le_bytes());
    Ok(())
}

/// Offset and symbol.
fn parse_relocation(entry: &[u8]) -> (u64, u64) {
    let half = |at: usize| entry[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    (half(0), half(8) >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_carry_the_functions_id() {
        assert_eq!(instruction(Some(0x0001_0203)), [0x85, 0x20, 0, 0, 3, 2, 1, 0]);
        assert_eq!(instruction(None), [0xb7, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        assert!(resolve(b"no object", &[("f", Some(1))]).is_err());
    }
}
