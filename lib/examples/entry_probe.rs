//! The probe of the command-line tests (`cli_probe`), begun at C's `main` as the tools are whose start counts.

#![cfg_attr(all(target_os = "linux", target_env = "gnu", not(test)), no_main)]

#[path = "cli_probe.rs"]
#[expect(dead_code, reason = "its own main")]
mod cli_probe;

milepost::tool_main!("cli-probe", cli_probe::run);
