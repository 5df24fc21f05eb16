"""How requests reach the authserver; ``base`` says what a transport has to be."""
