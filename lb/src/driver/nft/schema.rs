//! Two tables while one version takes over from another.
//!
//! A table says in its comment which schema's labels it acts on, and acts on no others. The table of the programs that
//! serve is left alone until they are replaced; the other name is free for this version's.

use std::{net::SocketAddr, sync::Arc};

use datapath::abi::{Label, SCHEMA};

use super::{Error, Nft, TABLE};

/// Name of a table beside that of another schema.
pub const SECOND: &str = "portico_next";

/// The last schema whose table had no comment.
const LAST_WITHOUT_COMMENT: u32 = 5;

/// The comment of this schema's tables.
pub(super) fn comment() -> String {
    comment_of(SCHEMA)
}

fn comment_of(schema: u32) -> String {
    format!("schema {schema}")
}

/// The schema that a table is of; none if there is no such table.
fn schema(table: &str) -> Result<Option<u32>, Error> {
    let snapshot = Nft::with_table(table).snapshot()?;
    let number = || snapshot.comment()?.strip_prefix("schema ")?.parse().ok();
    Ok(snapshot.exists().then(|| number().unwrap_or(LAST_WITHOUT_COMMENT)))
}

/// Which of both names this schema's table has or should have, by the schemas that the tables of these names are of and the
/// one that serves, if it is another; zero is one that nobody knows.
fn choose(first: Option<u32>, second: Option<u32>, serving: Option<u32>) -> &'static str {
    match (first, second) {
        (Some(SCHEMA), _) => TABLE,
        (_, Some(SCHEMA)) => SECOND,
        (Some(_), _) if first == serving || serving == Some(0) => SECOND,
        _ => TABLE,
    }
}

impl Nft {
    /// For the table of this schema while programs of another one may serve.
    ///
    /// # Errors
    /// If the tables cannot be read.
    pub fn beside(serving: Option<u32>) -> Result<Self, Error> {
        let name = choose(schema(TABLE)?, schema(SECOND)?, serving);
        Ok(Self::with_table(name).with_comment(&comment()))
    }

    /// The ids of all backends with their addresses, as the table of another schema has them; none if there is no such
    /// table, or its maps are not like ours.
    ///
    /// # Errors
    /// If the tables cannot be read.
    pub fn load_other(&self, serving: u32) -> Result<Vec<(u32, SocketAddr)>, Error> {
        let other = if self.name() == TABLE { SECOND } else { TABLE };
        if schema(other)? != Some(serving) {
            return Ok(Vec::new());
        }
        let elements = match Self::with_table(other).elements() {
            Err(Error::Refused { .. } | Error::Answer { .. }) => Vec::new(),
            elements => elements?,
        };
        // Of the bits of a label, each schema so far has had the id in these.
        let id = |label: u32| Some(label & (Label::RESERVED - 1)).filter(|id| *id >= Label::FIRST);
        let backend = |(label, addr)| Some((id(label).filter(|_| label & Label::PECULIAR.0 == 0)?, addr));
        Ok(elements.into_iter().filter_map(backend).collect())
    }

    /// Whether the table of another schema, which this one is beside, is gone.
    ///
    /// # Errors
    /// If the tables cannot be read.
    pub fn is_alone(&self, serving: u32) -> Result<bool, Error> {
        Ok(self.name() == SECOND && schema(TABLE)?.is_none_or(|found| found != serving && serving != 0))
    }

    /// Gives this schema's table its name, `inet portico`, in one transaction, and deletes that of the other one, whose
    /// labels no packet may carry any more.
    ///
    /// # Errors
    /// If the tables cannot be read or written.
    pub fn settle(&mut self) -> Result<(), Error> {
        let attempt = "put the table of this version into the place of another version's";
        if self.name() == TABLE {
            return match schema(SECOND)? {
                Some(_) => self.commit(attempt, |transaction| transaction.delete_table(SECOND)),
                None => Ok(()),
            };
        }
        let elements = self.elements()?;
        let synproxy = self.expected()?.synproxy;
        // What the kernel says of a table names it.
        let first = Self { table: TABLE.into(), expected: Arc::default(), ..self.clone() };
        first.commit(attempt, |transaction| {
            transaction.replace(synproxy, self.comment.as_deref());
            transaction.add_elements(&elements);
            transaction.delete_table(SECOND);
        })?;
        *self = first;
        Ok(())
    }

    /// Deletes the tables of all schemas.
    ///
    /// # Errors
    /// If the kernel refuses; not if there is none.
    pub fn remove_all() -> Result<(), Error> {
        [TABLE, SECOND].into_iter().try_for_each(|name| Self::with_table(name).remove())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_what_serves_is_left_alone() {
        let (old, next) = (Some(SCHEMA - 1), Some(SCHEMA + 1));
        for (first, second, serving, name) in [
            (None, None, None, TABLE),
            (Some(SCHEMA), None, None, TABLE),
            // Upgrade, and a former daemon of this version that was killed before or after the switch.
            (old, None, old, SECOND),
            (old, Some(SCHEMA), old, SECOND),
            (old, Some(SCHEMA), None, SECOND),
            // Back, while the other version's table has not got its name yet.
            (Some(SCHEMA), next, next, TABLE),
            (old, next, next, TABLE),
            (next, None, next, SECOND),
            (next, old, next, SECOND),
            // A table that nobody labels packets for.
            (old, None, None, TABLE),
            (next, None, old, TABLE),
            (None, next, next, TABLE),
            // It may be the table of programs whose maps are not pinned any more.
            (old, None, Some(0), SECOND),
            (Some(SCHEMA), None, Some(0), TABLE),
        ] {
            assert_eq!(choose(first, second, serving), name, "{first:?} {second:?} {serving:?}");
        }
    }
}
