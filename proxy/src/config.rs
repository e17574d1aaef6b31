//! Every knob, declared once.
