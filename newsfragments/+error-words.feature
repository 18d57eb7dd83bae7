Errors say more plainly what is wrong and what to do: for instance which option to set together with which, which range a number must be in, and
how an absent parent comes back. The reference shows commands in remedies as commands.
