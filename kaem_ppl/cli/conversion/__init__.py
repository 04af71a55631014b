"""Settings files of the two earlier KAEM programs, in Julia and in JAX, as settings of this one."""
