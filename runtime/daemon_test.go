package runtime

const daemonEnv = "LINKSPAN_RUNTIME_TEST_DAEMON"

func daemonMain() int { return 0 }
