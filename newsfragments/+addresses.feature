Address management of its own: several networks share one subnet, ranges can be excluded, a freed address rests before it is given out again, and the subnet may be left out.
