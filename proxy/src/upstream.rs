//! Chooses, reaches, pools and ejects endpoints.
