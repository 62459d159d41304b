//! The commands, one module each.

mod check;
mod deliveries;
mod demo;
mod doctor;
pub(crate) mod events;
mod listen;
pub(crate) mod plugin;
mod plugin_logs;
pub(crate) mod plugins;
mod push;
mod queue;
mod serve;
mod tenants;
mod versions;

use clap::CommandFactory as _;

use crate::args::{
    Cli, Command, Config as ConfigCommand, Deliveries, Event, Events, Plugins, Queue, Tenants,
};
use crate::config::Config;
use crate::logging;

/// Runs what was asked for.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<()> {
    let Cli { global, command } = cli;
    let json = global.json;
    match command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "wasmhook", &mut script);
            crate::output::whole(&script);
            Ok(())
        }
        Command::CompileComponent { .. } => anyhow::bail!("the host alone compiles this way"),
        Command::Demo(demo) => demo::run(demo, json).await,
        Command::Listen(listen) => listen::run(&listen, json).await,
        Command::Serve => {
            let config = Config::load(&global)?;
            logging::start(&config.log)?;
            serve::run(&config).await
        }
        Command::Doctor => doctor::run(&Config::load(&global)?, json).await,
        Command::Event(Event::Push(push)) => push::run(&Config::load(&global)?, push, json).await,
        Command::Events(Events::Rejected { limit }) => {
            events::rejected(&Config::load(&global)?, limit, json).await
        }
        Command::Events(Events::Record(record)) => {
            events::record(&Config::load(&global)?, record, json).await
        }
        Command::Deliveries(command) => {
            let config = Config::load(&global)?;
            match command {
                Deliveries::List {
                    tenant,
                    state,
                    limit,
                    cursor,
                } => deliveries::list(&config, tenant, state, limit, cursor, json).await,
                Deliveries::Show {
                    id,
                    tenant,
                    response,
                } => deliveries::show(&config, &id, tenant, response, json).await,
                Deliveries::Skip { tenant, ids } => {
                    deliveries::skip(&config, &tenant, ids, json).await
                }
                Deliveries::Replay {
                    tenant,
                    ids,
                    dead_letters,
                } => deliveries::replay(&config, &tenant, ids, dead_letters, json).await,
            }
        }
        Command::Queue(Queue::Check { repair }) => {
            queue::check(&Config::load(&global)?, repair, json).await
        }
        Command::Tenants(Tenants::Forget { tenant, force }) => {
            tenants::forget(&Config::load(&global)?, &tenant, force, json).await
        }
        Command::Plugins(command) => {
            let config = Config::load(&global)?;
            match command {
                Plugins::List { tenant } => plugins::list(&config, tenant.as_deref(), json).await,
                Plugins::Check { file } => plugin::check(&config, &file, json).await,
                Plugins::Logs {
                    tenant,
                    name,
                    lines,
                    follow,
                } => {
                    let wanted = plugin_logs::Wanted {
                        tenant,
                        plugin: name,
                        lines,
                    };
                    plugin_logs::run(&config, &wanted, follow, json).await
                }
                Plugins::History { tenant, name } => {
                    versions::history(&config, &tenant, &name, json)
                }
                Plugins::Rollback {
                    tenant,
                    name,
                    digest,
                } => versions::rollback(&config, &tenant, &name, digest.as_deref(), json),
                Plugins::Pin {
                    tenant,
                    name,
                    digest,
                } => versions::pin(&config, &tenant, &name, &digest, json),
                Plugins::Unpin { tenant, name } => versions::unpin(&config, &tenant, &name, json),
                Plugins::Promote { tenant, name } => {
                    versions::promote(&config, &tenant, &name, json)
                }
            }
        }
        Command::Plugin(command) => plugin::run(&global, command, json).await,
        Command::Config(ConfigCommand::Check) => check::run(&Config::load(&global)?, json).await,
    }
}
