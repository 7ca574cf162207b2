package native

const initMachine uint16 = 183 // EM_AARCH64
