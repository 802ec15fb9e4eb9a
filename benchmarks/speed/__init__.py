"""Speed: how near beam_ray comes to what nobody can beat, beside a plain loop and beside its peers."""
