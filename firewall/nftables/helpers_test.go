package nftables_test

import "time"

const patience = 400 * time.Millisecond // after which a question that should be stopped counts as stopped
