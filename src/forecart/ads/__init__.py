"""From predicted advertisers and products to ads that may be shown now.

Takes an inventory of campaigns, ad groups and ads, and a request; gives the eligible ads of the candidates,
scored and blended. Eligibility is a mask that is known before anything is cut to a length, so that lists
fill up, and it fails closed: what a rule cannot read may not be shown. Nothing here imports torch.
"""
