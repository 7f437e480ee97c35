mod conflicts;
mod fake;
mod paths;
mod sequence;
mod stale;
