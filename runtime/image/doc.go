// Package image keeps images: the root file systems that containers start
// from, with what is to be run in them.
//
// An image is three kinds of file, each named by the SHA-256 of its content: a
// configuration in JSON, which lists layers; layers, which are tar archives of
// what each adds to those below; and a manifest, which a registry knows the two
// by. By hand, nearly:
//
//	tar -xf layer1.tar -C l1; tar -xf layer2.tar -C l2   # once, whoever uses them
//	mount -t overlay -o lowerdir=l2:l1,upperdir=u,workdir=w none root
//
// A layer says that a file of a lower one is gone by an entry .wh.NAME, which
// overlayfs wants as a character device 0:0: the unpacking translates.
//
//	DATA/images/blobs/sha256/HEX     configurations, manifests, layers as they came
//	DATA/images/layers/HEX/diff      an unpacked layer, by the digest of its tar
//	DATA/images/layers/HEX/layer.json
//	DATA/images/l/SHORT              a link to the diff: mount(2) takes one page of options
//	DATA/images/images/HEX.json      one image, by the digest of its configuration
//	DATA/images/references.json      the names
//	DATA/images/tmp                  what is under way; emptied when a daemon starts
//
// Everything is written beside its place and renamed into it, the records
// last, so whatever a record names is whole. Layers and blobs that no record
// names are swept when an image goes.
//
// [Open] makes a [Store]. Images come in by [Store.Import], [Store.Load],
// [Store.Pull] and [Store.Commit], are found by [Store.Get], used by containers
// under [Store.Use], and go by [Store.Remove].
package image
