//! Reading the kernel's type information: where members of its structures lie, and the ids of its functions.
//!
//! aya reads BTF to relocate programs, and tells neither members nor the types of modules. Format: the kernel's
//! `Documentation/bpf/btf.rst`. A module's BTF is split: its type ids and string offsets go on where vmlinux' end.

use std::{fs, io, path::Path};

/// Why the kernel's types could not be read.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("cannot read {path}")]
    Read { path: String, source: io::Error },
    #[error("{path} is no BTF that is known here")]
    Format { path: String },
    #[error("the kernel has no type {0}")]
    NoType(String),
    #[error("structure {structure} has no member {member}")]
    NoMember { structure: String, member: String },
}

/// Where the kernel shows its types, one file a module.
const DIRECTORY: &str = "/sys/kernel/btf";
/// The file of the kernel proper.
pub const VMLINUX: &str = "vmlinux";

/// Kinds of types, `BTF_KIND_*`.
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// The types of the kernel, or of a module on top of it.
pub struct Btf {
    types: Vec<u8>,
    strings: Vec<u8>,
    /// Where in `types` each type begins, from [`Btf::first`] on.
    index: Vec<usize>,
    base: Option<Box<Self>>,
}

#[derive(Clone, Copy)]
struct Type<'a> {
    name: u32,
    kind: u32,
    /// Number of members, and whether members have bit fields.
    count: u32,
    bit_fields: bool,
    /// Size in bytes, or the type referred to.
    size_or_type: u32,
    data: &'a [u8],
}

/// A member: its offset from the start of the structure that was asked about, and its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// In bytes.
    pub offset: u32,
    /// Type id.
    pub type_id: u32,
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

impl Btf {
    /// The types of the running kernel.
    ///
    /// # Errors
    ///
    /// It does not show them.
    pub fn kernel() -> Result<Self, Error> {
        Self::read(VMLINUX, None)
    }

    /// Those of a module, besides the kernel's; none if it is built in or not loaded.
    ///
    /// # Errors
    ///
    /// The kernel's own cannot be read.
    pub fn module(name: &str) -> Result<Option<Self>, Error> {
        if !Path::new(DIRECTORY).join(name).exists() {
            return Ok(None);
        }
        Self::read(name, Some(Self::kernel()?)).map(Some)
    }

    fn read(name: &str, base: Option<Self>) -> Result<Self, Error> {
        let path = format!("{DIRECTORY}/{name}");
        match fs::read(&path) {
            Ok(bytes) => Self::parse(&bytes, base).ok_or(Error::Format { path }),
            Err(source) => Err(Error::Read { path, source }),
        }
    }

    fn parse(bytes: &[u8], base: Option<Self>) -> Option<Self> {
        const MAGIC: [u8; 3] = [0x9f, 0xeb, 1];
        let [magic, version] = [u16::from_ne_bytes(*bytes.first_chunk()?), u16::from(*bytes.get(2)?)];
        if magic != u16::from_be_bytes([MAGIC[1], MAGIC[0]]) || version != u16::from(MAGIC[2]) {
            return None;
        }
        let header = word(bytes, 4)? as usize;
        let [types, types_len, strings, strings_len] =
            [8, 12, 16, 20].map(|at| word(bytes, at).map(|word| word as usize));
        let section = |start: usize, len: usize| bytes.get(header + start..)?.get(..len).map(<[u8]>::to_vec);
        let mut btf = Self {
            types: section(types?, types_len?)?,
            strings: section(strings?, strings_len?)?,
            index: Vec::new(),
            base: base.map(Box::new),
        };
        let mut at = 0;
        while at < btf.types.len() {
            btf.index.push(at);
            at += btf.at(at)?.len();
        }
        Some(btf)
    }

    /// The id of the first type that is not the kernel's.
    fn first(&self) -> u32 {
        // Zero is void, which is not written down.
        self.base.as_ref().map_or(1, |base| base.end())
    }

    fn end(&self) -> u32 {
        self.first() + self.index.len() as u32
    }

    fn at(&self, at: usize) -> Option<Type<'_>> {
        let info = word(&self.types, at + 4)?;
        Some(Type {
            name: word(&self.types, at)?,
            kind: info >> 24 & 0x1f,
            count: info & 0xffff,
            bit_fields: info >> 31 != 0,
            size_or_type: word(&self.types, at + 8)?,
            data: self.types.get(at + Type::HEADER..)?,
        })
    }

    fn get(&self, id: u32) -> Option<Type<'_>> {
        match &self.base {
            Some(base) if id < self.first() => base.get(id),
            _ => self.at(*self.index.get(id.checked_sub(self.first())? as usize)?),
        }
    }

    fn string(&self, offset: u32) -> Option<&[u8]> {
        let skipped = self.base.as_ref().map_or(0, |base| base.strings.len());
        match &self.base {
            Some(base) if (offset as usize) < skipped => base.string(offset),
            _ => self.strings.get(offset as usize - skipped..)?.split(|byte| *byte == 0).next(),
        }
    }

    fn find(&self, kind: u32, name: &str) -> Option<u32> {
        let own = (self.first()..self.end()).find(|id| {
            let is = |found: Type<'_>| found.kind == kind && self.string(found.name) == Some(name.as_bytes());
            self.get(*id).is_some_and(is)
        });
        own.or_else(|| self.base.as_ref()?.find(kind, name))
    }

    /// The id of a function.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<u32> {
        self.find(kind::FUNC, name)
    }

    /// The id of a structure.
    ///
    /// # Errors
    ///
    /// There is none of that name.
    pub fn structure(&self, name: &str) -> Result<u32, Error> {
        self.find(kind::STRUCT, name).ok_or_else(|| Error::NoType(format!("struct {name}")))
    }

    /// A member of a structure or union, by its path (`proto.tcp.state`); members of unnamed ones within count as its
    /// own, and an array as its first element.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn member(&self, structure: u32, path: &str) -> Result<Member, Error> {
        let mut found = Member { offset: 0, type_id: structure };
        for name in path.split('.') {
            let inner = self.member_of(self.plain(found.type_id), name.as_bytes());
            let inner = inner.ok_or_else(|| Error::NoMember {
                structure: self.name(structure),
                member: path.to_owned(),
            })?;
            found = Member { offset: found.offset + inner.offset, type_id: inner.type_id };
        }
        Ok(found)
    }

    fn name(&self, id: u32) -> String {
        let name = self.get(id).and_then(|found| self.string(found.name)).unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    }

    fn member_of(&self, structure: u32, name: &[u8]) -> Option<Member> {
        let outer = self.get(structure)?;
        if ![kind::STRUCT, kind::UNION].contains(&outer.kind) {
            return None;
        }
        (0..outer.count as usize).find_map(|i| {
            let [own, type_id, bits] = [0, 4, 8].map(|at| word(outer.data, i * 12 + at));
            let (type_id, bits) = (type_id?, bits?);
            let bits = if outer.bit_fields { bits & 0x00ff_ffff } else { bits };
            let found = Member { offset: bits / 8, type_id };
            match self.string(own?)? {
                [] => {
                    let inner = self.member_of(self.plain(type_id), name)?;
                    Some(Member { offset: found.offset + inner.offset, ..inner })
                }
                own => (own == name).then_some(found),
            }
        })
    }

    /// Without names, qualifiers and array around it.
    fn plain(&self, mut id: u32) -> u32 {
        while let Some(outer) = self.get(id) {
            id = match outer.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    outer.size_or_type
                }
                kind::ARRAY => word(outer.data, 0).unwrap_or_default(),
                _ => break,
            };
        }
        id
    }

    /// The size in bytes of a type; of an array, that of an element.
    #[must_use]
    pub fn size(&self, id: u32) -> Option<u32> {
        let found = self.get(self.plain(id))?;
        match found.kind {
            kind::PTR => Some(size_of::<usize>() as u32),
            kind::INT | kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM64 => Some(found.size_or_type),
            _ => None,
        }
    }
}

impl Type<'_> {
    /// Name, info, size or type.
    const HEADER: usize = 12;

    fn len(&self) -> usize {
        let count = self.count as usize;
        Self::HEADER
            + match self.kind {
                kind::INT | kind::VAR | kind::DECL_TAG => 4,
                kind::ARRAY => 12,
                kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * count,
                kind::ENUM | kind::FUNC_PROTO => 8 * count,
                _ => 0,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_structures_are_found() {
        let btf = Btf::kernel().unwrap();
        let tuple = btf.structure("in6_addr").unwrap();
        assert_eq!(btf.size(tuple), Some(16));
        assert_eq!(btf.member(tuple, "in6_u.u6_addr32").unwrap().offset, 0);
        let header = btf.structure("iphdr").unwrap();
        assert_eq!(btf.member(header, "check").unwrap().offset, 10);
        // Within a union without a name.
        assert_eq!(btf.member(header, "daddr").unwrap().offset, 16);
        assert_eq!(btf.member(header, "addrs.daddr").unwrap().offset, 16);
        assert!(btf.function("bpf_xdp_metadata_rx_hash").is_some());
    }

    #[test]
    fn what_is_not_there_is_named() {
        let btf = Btf::kernel().unwrap();
        let error = btf.structure("no_such_structure").unwrap_err();
        assert_eq!(error.to_string(), "the kernel has no type struct no_such_structure");
        let header = btf.structure("iphdr").unwrap();
        let error = btf.member(header, "checksum").unwrap_err();
        assert_eq!(error.to_string(), "structure iphdr has no member checksum");
    }

    #[test]
    fn garbage_is_refused() {
        for bytes in [&[][..], &[0x9f, 0xeb, 1], &[0; 64], &[0xff; 64]] {
            assert!(Btf::parse(bytes, None).is_none());
        }
    }
}
