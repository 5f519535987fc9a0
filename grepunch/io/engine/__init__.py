"""The fast data path: offload at the TUN device, batches at the raw socket, and the loop between them.

``virtio`` is the header that a TUN device with offload puts before each packet, ``segmenting`` cuts what the kernel
hands over in one piece, ``coalescing`` puts together what arrived in many, ``checksum`` says which checksums may be
left to the seal and completes the others, ``batches`` are the system calls for many packets, and ``loop`` joins them.
:mod:`grepunch.datapump` is the readable reference, and what runs where a kernel lacks the offload.
"""
