mod leadership;
mod properties;
mod registration;
mod volumes;
