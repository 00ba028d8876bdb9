mod eligible;
mod leadership;
mod properties;
mod registration;
mod safety;
mod volumes;
