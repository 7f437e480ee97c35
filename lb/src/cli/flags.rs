//! Flags of `portico run` that set a field of the configuration.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, builder::PossibleValuesParser};

use crate::config::{self, Flag, Given};

/// The flags that were given.
#[derive(Clone, Debug, Default)]
pub(super) struct Flags(pub(super) Vec<Given>);

const KUBE_PROXY: &str = "Options of kube-proxy";

fn arg(flag: &Flag) -> Arg {
    // The last one counts, or they add up: that is for the configuration to say.
    let arg = Arg::new(flag.name).long(flag.name).value_name(flag.value).action(ArgAction::Append);
    let arg = if flag.bool {
        arg.num_args(0..=1).require_equals(true).default_missing_value("true")
    } else {
        arg.num_args(1).allow_negative_numbers(flag.number)
    };
    let arg = match flag.name {
        "v" => arg.short('v'),
        "xdp" => arg.value_parser(PossibleValuesParser::new(["auto", "native", "generic", "off"])),
        _ => arg,
    };
    let arg = if flag.kube_proxy { arg.help_heading(KUBE_PROXY) } else { arg };
    match flag.help {
        Some(help) => arg.help(help),
        None => arg.hide(true),
    }
}

/// The end of the help: flags without a line of their own.
fn idle() -> String {
    let names: Vec<_> =
        config::flags().filter(|flag| flag.help.is_none()).map(|flag| format!("--{}", flag.name)).collect();
    format!(
        "Flags of kube-proxy that are accepted and mean nothing here, or are deprecated:\n{}",
        names.join(" ")
    )
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        config::flags().fold(command, |command, flag| command.arg(arg(&flag))).after_help(idle())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = config::flags().filter_map(|flag| {
            let values = matches.get_many::<String>(flag.name)?;
            Some(Given { flag: flag.name, values: values.cloned().collect() })
        });
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
