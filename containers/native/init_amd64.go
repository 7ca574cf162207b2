package native

const initMachine uint16 = 62 // EM_X86_64
