package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// tableName is the attribute that names the table of a table, chain, rule, set
// or element alike (linux/netfilter/nf_tables.h).
const tableName = 1

// FollowRules tells of changes that others make to tables of nftables with one
// of the names, in the machine's own namespace (nft monitor): the channel holds
// one token while there is something new, and is closed when ctx ends or the
// kernel no longer reports. Several changes may be one token. Changes that this
// Host made are left out: each generation of rules is reported with the port of the
// socket that made it.
func (h *Host) FollowRules(ctx context.Context, tables []string) (<-chan struct{}, error) {
	d, err := h.door("")
	if err != nil {
		return nil, err
	}
	var conn *netlink.Conn
	err = d.through(func(fd int) (err error) {
		conn, err = netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: fd})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	if err := errors.Join(conn.JoinGroup(unix.NFNLGRP_NFTABLES), conn.SetReadBuffer(4<<20)); err != nil {
		conn.Close()
		return nil, fmt.Errorf("subscribing to changes of rules: %w", err)
	}
	changes := make(chan struct{}, 1)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	go func() {
		defer close(changes)
		defer stop()
		concerned := false
		for {
			messages, err := conn.Receive()
			switch {
			case errors.Is(err, unix.ENOBUFS): // there was more than the socket holds
				concerned = true
			case err != nil:
				return
			}
			for _, m := range messages {
				kind := int(m.Header.Type) & 0xff
				if kind != unix.NFT_MSG_NEWGEN {
					concerned = concerned || slices.Contains(tables, string(bytes.TrimRight(behindHeader(m.Data, tableName), "\x00")))
					continue
				}
				if concerned && m.Header.PID != d.port.Load() {
					select {
					case changes <- struct{}{}:
					default:
					}
				}
				concerned = false
			}
		}
	}()
	return changes, nil
}

// behindHeader returns an attribute of a message of nfnetlink, whose header has
// four bytes; nil if it is not there.
func behindHeader(data []byte, kind uint16) []byte {
	if len(data) < 4 {
		return nil
	}
	attributes, err := netlink.UnmarshalAttributes(data[4:])
	if err != nil {
		return nil
	}
	for _, a := range attributes {
		if a.Type&^(netlink.Nested|netlink.NetByteOrder) == kind {
			return a.Data
		}
	}
	return nil
}
