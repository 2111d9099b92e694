//! Administration of tenants, models, keys, callers, webhooks and failed jobs.
//!
//! The commands read and write the tables directly, so IAM decides which operators may run them.

mod apply;
mod callers;
mod file;
mod jobs;
mod keys;
mod quota;
mod residency;
mod show;
mod verify;
mod webhooks;

use std::{
    io::{Write, stdout},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use spillway::{
    app::{App, Clients, aws},
    broker,
    config::{BedrockEndpoints, Config},
    store::{LedgerError, RegistryError, StoreError, ledger::Ledger},
    telemetry::Telemetry,
    units::UnixMs,
};

pub use apply::Change;
pub use file::Entries;
pub use webhooks::Webhooks;

/// The administration commands.
#[derive(Debug, clap::Subcommand)]
pub enum Admin {
    /// Manage tenants and their limits
    Tenants(Scoped<Tenants>),
    /// Manage models and their pools
    Models(Scoped<Models>),
    /// Manage the API keys of tenants
    Keys(Scoped<Keys>),
    /// Manage AWS identities that call as a tenant without a key
    Callers(Scoped<Callers>),
    /// Manage webhook endpoints, which are notified when a tenant's jobs and batches end
    Webhooks(Scoped<Webhooks>),
    /// Show how much of its limits a tenant has used, and its latest refusals
    Quota(Quota),
    /// Inspect jobs, and redrive or drop the dead letters of failed jobs
    Jobs(Scoped<jobs::Jobs>),
    /// Check the counters that admission decides on
    Ledger(Scoped<LedgerCommand>),
    /// Check files of tenants and models
    #[command(subcommand)]
    Config(Check),
}

/// Arguments of `spillway quota`.
#[derive(Debug, clap::Args)]
pub struct Quota {
    /// Name of the tenant
    #[arg(value_name = "TENANT")]
    tenant: String,
    #[command(flatten)]
    tables: TableNames,
}

#[derive(Debug, clap::Subcommand)]
pub enum LedgerCommand {
    /// Recompute the counters from request events, and report every difference
    Verify(verify::Args),
}

/// A command and the names of its tables.
#[derive(Debug, clap::Args)]
pub struct Scoped<C: clap::Subcommand> {
    #[command(subcommand)]
    command: C,
    #[command(flatten)]
    tables: TableNames,
}

/// Table names that override the environment.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TableNames {
    /// Name of the registry table [default: $SPILLWAY_REGISTRY_TABLE, else spillway-registry]
    #[arg(long, global = true, value_name = "NAME")]
    registry_table: Option<String>,
    /// Name of the ledger table [default: $SPILLWAY_LEDGER_TABLE, else spillway-ledger]
    #[arg(long, global = true, value_name = "NAME")]
    ledger_table: Option<String>,
    /// Name of the jobs table [default: $SPILLWAY_JOBS_TABLE, else spillway-jobs]
    #[arg(long, global = true, value_name = "NAME")]
    jobs_table: Option<String>,
}

#[derive(Debug, clap::Subcommand)]
pub enum Tenants {
    /// Create or update the tenants in a file; other tenants do not change
    Apply {
        /// TOML file with [[tenants]]
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// List all tenants
    List,
    /// Print a tenant as a file for `spillway tenants apply`
    Show {
        /// Name of the tenant
        #[arg(value_name = "TENANT")]
        name: String,
    },
    /// Delete a tenant with its keys, callers and webhooks
    Delete {
        /// Name of the tenant
        #[arg(value_name = "TENANT")]
        name: String,
    },
}

#[derive(Debug, clap::Subcommand)]
pub enum Models {
    /// Create or update the models in a file; other models do not change
    Apply {
        /// TOML file with [[models]]
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// List all models
    List,
    /// Print a model as a file for `spillway models apply`
    Show {
        /// Name, alias or Bedrock model ID of the model
        #[arg(value_name = "MODEL")]
        name: String,
    },
    /// Delete a model
    Delete {
        /// Name of the model
        #[arg(value_name = "MODEL")]
        name: String,
    },
}

#[derive(Debug, clap::Subcommand)]
pub enum Keys {
    /// Create a key for a tenant and print it; it is never shown again
    Create {
        /// Name of the tenant
        #[arg(value_name = "TENANT")]
        tenant: String,
        /// Lifetime of the key, such as 90d, 12h or 30m; without it the key does not expire
        #[arg(long, value_name = "TIME", value_parser = keys::parse_duration)]
        expires_in: Option<Duration>,
    },
    /// Revoke a key
    Revoke {
        /// ID of the key, or the whole key
        #[arg(value_name = "KEY_ID")]
        key_id: String,
    },
    /// List the keys of a tenant
    List {
        /// Name of the tenant
        #[arg(value_name = "TENANT")]
        tenant: String,
    },
}

#[derive(Debug, clap::Subcommand)]
pub enum Callers {
    /// Let an identity, which API Gateway or the Function URL verifies, call as a tenant
    Allow {
        /// ARN of an IAM role or user; all sessions of a role are the same caller. Locally an
        /// access key ID
        #[arg(value_name = "CALLER")]
        id: String,
        /// Name of the tenant that the caller's requests are charged to
        #[arg(long, value_name = "TENANT")]
        tenant: String,
    },
    /// Stop an identity from calling as a tenant
    Revoke {
        /// ARN of the IAM role or user, or the access key ID
        #[arg(value_name = "CALLER")]
        id: String,
    },
    /// List all callers
    List,
}

#[derive(Debug, clap::Subcommand)]
pub enum Check {
    /// Report every error in a file, and change nothing
    Check {
        /// TOML file with [[tenants]], [[models]] or both
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// Runs `command` on the AWS account that the environment selects, and prints the result.
///
/// # Errors
/// Returns an error if the command is refused or a table is unavailable.
pub async fn run(command: Admin) -> anyhow::Result<()> {
    let config = command.config()?;
    let command_table = match &command {
        Admin::Jobs(_) => format!("jobs table {}", config.jobs_table),
        Admin::Quota(_) => ledger_table(&config),
        _ => registry_table(&config),
    };
    let app = App::new(&config, Clients::new(&aws().await, None, BedrockEndpoints::default())?, Telemetry::off());
    let mut out = stdout().lock();
    let result = execute(command, &app, app.clock.now(), &mut out).await;
    let changes = result.map_err(|error| match failed_table(&error, command_table, &config) {
        Some(table) => error.context(table),
        None => error,
    })?;
    out.flush()?;
    fence(&app.ledger, &changes).await.context("the change was made, but it may take some seconds to apply everywhere")
}

/// Returns the table that `error` is about, because an error of the store does not name it; `None`
/// for any other error. `command_table` is the table that the command is about.
fn failed_table(error: &anyhow::Error, command_table: String, config: &Config) -> Option<String> {
    if error.is::<LedgerError>() {
        Some(ledger_table(config))
    } else if error.is::<RegistryError>() {
        Some(registry_table(config))
    } else {
        error.is::<StoreError>().then_some(command_table)
    }
}

fn ledger_table(config: &Config) -> String {
    format!("ledger table {}", config.ledger_table)
}

fn registry_table(config: &Config) -> String {
    format!("registry table {}", config.registry_table)
}

/// Runs `command` on the tables of `app`, writes the result to `out`, and returns the changed
/// entries.
///
/// # Errors
/// Returns an error if the command is refused, a table is unavailable, or a verification fails.
pub async fn execute(command: Admin, app: &App, now: UnixMs, out: &mut impl Write) -> anyhow::Result<Vec<Change>> {
    let registry = &app.registry;
    match command {
        Admin::Tenants(Scoped { command, .. }) => match command {
            Tenants::Apply { file } => {
                let entries = Entries::read(&file)?;
                apply::check_buckets(&entries, app.own_bucket())?;
                return apply::tenants(registry, &entries, out).await;
            }
            Tenants::List => show::tenants(registry, out).await?,
            Tenants::Show { name } => show::tenant(registry, &name, out).await?,
            Tenants::Delete { name } => apply::delete_tenant(registry, &name, out).await?,
        },
        Admin::Models(Scoped { command, .. }) => match command {
            Models::Apply { file } => return apply::models(registry, &Entries::read(&file)?, out).await,
            Models::List => show::models(registry, out).await?,
            Models::Show { name } => show::model(registry, &name, out).await?,
            Models::Delete { name } => apply::delete_model(registry, &name, out).await?,
        },
        Admin::Keys(Scoped { command, .. }) => match command {
            Keys::Create { tenant, expires_in } => keys::create(registry, &tenant, expires_in, now, out).await?,
            Keys::Revoke { key_id } => keys::revoke(registry, &key_id, out).await?,
            Keys::List { tenant } => keys::list(registry, &tenant, now, out).await?,
        },
        Admin::Callers(Scoped { command, .. }) => match command {
            Callers::Allow { id, tenant } => callers::allow(registry, &id, &tenant, out).await?,
            Callers::Revoke { id } => callers::revoke(registry, &id, out).await?,
            Callers::List => callers::list(registry, out).await?,
        },
        Admin::Webhooks(Scoped { command, .. }) => webhooks::run(command, app, now, out).await?,
        Admin::Quota(Quota { tenant, .. }) => quota::show(app, &tenant, now, out).await?,
        Admin::Jobs(Scoped { command, .. }) => jobs::run(command, app, now, out).await?,
        Admin::Ledger(Scoped { command: LedgerCommand::Verify(args), .. }) => verify::run(app, &args, now, out).await?,
        Admin::Config(Check::Check { file }) => {
            let entries = Entries::read(&file)?;
            apply::check_buckets(&entries, app.own_bucket())?;
            let models = entries.models.iter().cloned().map(Arc::new);
            residency::warn(&entries.tenants, &[], models, app.registry.own_region(), out)?;
            let (tenants, models) = (entries.tenants.len(), entries.models.len());
            writeln!(out, "{} is valid (tenants: {tenants}, models: {models})", file.display())?;
        }
    }
    Ok(Vec::new())
}

/// Makes changed limits apply immediately: an admission under older limits fails and reads the
/// registry again.
async fn fence(ledger: &Ledger, changes: &[Change]) -> anyhow::Result<()> {
    for change in changes {
        match change {
            Change::Tenant { tenant, former_shards } => {
                ledger.fence(&broker::account_for(tenant), *former_shards).await?;
            }
            Change::Model { model, former_shards } => {
                for pool in model.ladder.iter().filter(|pool| !pool.limits.is_unlimited()) {
                    let former_shards = former_shards.get(&pool.name).copied().unwrap_or_default();
                    ledger.fence(&broker::account_for_pool(model, pool, 100), former_shards).await?;
                }
            }
        }
    }
    Ok(())
}

impl Admin {
    fn config(&self) -> anyhow::Result<Config> {
        let mut config = Config::from_env()?;
        let tables = match self {
            Self::Tenants(scoped) => scoped.tables.clone(),
            Self::Models(scoped) => scoped.tables.clone(),
            Self::Keys(scoped) => scoped.tables.clone(),
            Self::Callers(scoped) => scoped.tables.clone(),
            Self::Webhooks(scoped) => scoped.tables.clone(),
            Self::Quota(quota) => quota.tables.clone(),
            Self::Jobs(scoped) => scoped.tables.clone(),
            Self::Ledger(scoped) => scoped.tables.clone(),
            Self::Config(_) => TableNames::default(),
        };
        config.registry_table = tables.registry_table.unwrap_or(config.registry_table);
        config.ledger_table = tables.ledger_table.unwrap_or(config.ledger_table);
        config.jobs_table = tables.jobs_table.unwrap_or(config.jobs_table);
        Ok(config)
    }
}
